"""How much better than its group a picture is, and the objective that follows it; a group is pictures of one prompt.

A picture whose score is missing (NaN) takes no part in any mean and has the advantage 0. Letters: B pictures,
R rewards. Group ids are integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..rewards.combine import weighted_sum, zscore


def require_groups(groups: Tensor) -> None:
    """Raise TastemakerError where a picture is alone in its group (B,): it is its own mean and teaches nothing."""
    if groups.is_floating_point():
        raise TastemakerError(f"expected integer group ids, got {groups.dtype}")
    alone = int((groups.unique(return_counts=True)[1] == 1).sum())
    if alone:
        raise TastemakerError(
            f"expected at least 2 pictures in each group, since one alone has no advantage over itself; {alone} of "
            f"{len(groups.unique())} groups hold one. Draw more pictures of each prompt (per_prompt)"
        )


def mean_free(scores: Tensor, groups: Tensor) -> Tensor:
    """r - mean of the group, (B,), in the reward's own unit, so that lambda keeps its meaning."""
    return _less_mean(scores, groups)[0].nan_to_num(0.0)


def standardised(scores: Tensor, groups: Tensor, everywhere: bool = False, epsilon: float = 1e-4) -> Tensor:
    """(r - mean of the group) / (deviation + epsilon), (B,): Flow-GRPO's (arXiv 2505.05470, Eq. 5; its release's
    epsilon). everywhere: the deviation of all scores instead of the group's. A group of one gives 0."""
    centred, known, counts, place = _less_mean(scores, groups)
    if everywhere:
        deviation = scores[known].std(correction=0).expand_as(scores)
    else:
        squares = torch.zeros_like(counts).index_add(0, place, centred.nan_to_num(0.0) ** 2)
        deviation = (squares / counts.clamp_min(1)).sqrt()[place]
    return (centred / (deviation + epsilon)).nan_to_num(0.0)


def decoupled(scores: Tensor, groups: Tensor, weights: Sequence[float] | Tensor) -> Tensor:
    """Several rewards (B, R), weights (R,) -> (B,): each reward is standardised within its group by itself, then they
    are summed, then the sum is standardised over all pictures (GDPO, arXiv 2601.05242, section 3). Summed first, as
    in GRPO, a reward of large spread hides the others."""
    total = weighted_sum(zscore(scores, groups), weights)
    return zscore(total[:, None])[:, 0].nan_to_num(0.0)


def surrogate(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - c, 1 + c)), (B,): PPO's (arXiv 1707.06347, Eq. 7), to be minimised."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def _less_mean(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scores minus their group's mean (B,), which are known (B,), counts (G,), and each picture's place in these."""
    known, place = ~scores.isnan(), groups.unique(return_inverse=True)[1]
    zero = scores.new_zeros(int(place.max()) + 1)
    counts = zero.index_add(0, place, known.to(scores))
    sums = zero.index_add(0, place, scores.nan_to_num(0.0))
    return scores - (sums / counts.clamp_min(1))[place], known, counts, place
