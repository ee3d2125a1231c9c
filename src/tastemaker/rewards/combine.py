"""Several rewards to one: pure functions on scores (B, R), higher is better. Letters: B pictures, R rewards.

A NaN is a score that is missing: it stays NaN, takes no part in any statistic, and a picture with one has no sum
and no place on the front. `sets` (B,) int64 makes every function work within each set alone, for example the
candidates of one prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName


def zscore(scores: Tensor, sets: Tensor | None = None) -> Tensor:
    """(B, R) -> (B, R): per column minus the mean, over the standard deviation (of the set, not unbiased).

    A column without spread gives 0.
    """
    return _within(_zscore, scores, sets)


def rank(scores: Tensor, sets: Tensor | None = None) -> Tensor:
    """(B, R) -> (B, R): the share of the others that a picture beats, ties counting half; 0.5 if it is alone."""
    return _within(lambda s: torch.stack([_rank(c) for c in s.T], 1), scores, sets)


def weighted_sum(scores: Tensor, weights: Tensor | Sequence[float]) -> Tensor:
    """(B, R), (R,) -> (B,); NaN where any score of the picture is missing, whatever its weight."""
    weights = torch.as_tensor(weights, dtype=scores.dtype, device=scores.device)
    if weights.shape != scores.shape[1:]:
        raise TastemakerError(f"expected {scores.shape[1]} weights, one per reward, got {tuple(weights.shape)}")
    return scores @ weights


def weights_of(names: Sequence[str], weights: Mapping[str, float]) -> Tensor:
    """(R,) in the order of `names`; a reward that is not mentioned has weight 1. Raises UnknownName."""
    for name in weights:
        if name not in names:
            raise UnknownName("reward to weigh", name, names)
    return torch.tensor([float(weights.get(name, 1.0)) for name in names])


def pareto_front(scores: Tensor, sets: Tensor | None = None) -> Tensor:
    """(B, R) -> (B,) bool: no picture of the set is at least as good in every reward and better in one.

    Equal pictures are on the front together; a picture with NaN never is.
    """
    return pareto_rank(scores, sets) == 0


def pareto_rank(scores: Tensor, sets: Tensor | None = None) -> Tensor:
    """(B, R) -> (B,) int64: 0 on the front, 1 on the front once that is taken away, and so on; -1 with NaN.

    Non-dominated sorting (Deb et al., NSGA-II, 2002, section III A).
    """
    return _within(lambda s: _pareto_rank(s)[:, None], scores, sets)[:, 0].long()


def _within(each: Callable[[Tensor], Tensor], scores: Tensor, sets: Tensor | None) -> Tensor:
    """each: (b, R) -> (b, any) of one set; (B, any) in the order of the rows."""
    if scores.ndim != 2:
        raise TastemakerError(f"expected scores of shape (B, R), got {tuple(scores.shape)}")
    if sets is None:
        sets = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    if sets.shape != scores.shape[:1] or sets.is_floating_point():
        raise TastemakerError(
            f"expected integer set ids of shape ({len(scores)},), got {sets.dtype} {tuple(sets.shape)}"
        )
    rows = [(sets == one).nonzero()[:, 0] for one in sets.unique()]
    if not rows:
        return scores
    parts = torch.cat([each(scores[r]) for r in rows])
    return parts[torch.cat(rows).argsort()]


def _zscore(scores: Tensor) -> Tensor:
    known = ~scores.isnan()
    count = known.sum(0).clamp_min(1)
    centred = scores - scores.nan_to_num().sum(0) / count
    std = (centred.nan_to_num().pow(2).sum(0) / count).sqrt()
    flat = std <= 1e-6 * torch.where(known, scores, 0).abs().amax(0)  # a constant column leaves rounding behind
    return torch.where(flat & known, 0.0, centred / torch.where(flat, 1.0, std))


def _rank(column: Tensor) -> Tensor:
    known = ~column.isnan()
    values, place, count = column[known].unique(return_inverse=True, return_counts=True)
    below = count.cumsum(0) - count
    beaten = (below + (count - 1) / 2)[place].to(column)
    others = max(len(place) - 1, 1)
    out = torch.full_like(column, float("nan"))
    out[known] = beaten / others if len(place) > 1 else torch.full_like(beaten, 0.5)
    return out


def _pareto_rank(scores: Tensor) -> Tensor:
    ranks = torch.full(scores.shape[:1], -1, device=scores.device)
    left = (~scores.isnan().any(1)).nonzero()[:, 0]
    level = 0
    while len(left):
        front = ~_dominated(scores[left])
        ranks[left[front]] = level
        left, level = left[~front], level + 1
    return ranks


def _dominated(scores: Tensor) -> Tensor:
    """(b, R) without NaN -> (b,) bool. A row at a time: memory stays b R."""
    return torch.stack([((scores >= s).all(1) & (scores > s).any(1)).any() for s in scores])
