"""What is asked of a generator that was trained with reward levels, and what its other branch gets.

Guidance with both is v- + g (v+ - v-) = v+ + w (v+ - v-) with w = g - 1 (MIRO, arXiv 2510.25897, section 3.3). In the
paper's equation the other branch has the same caption; its release empties it. Letters: B batch, R rewards, K rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName
from ..protocols import Condition
from ..records import Prompt


def target_vector(wished: Mapping[str, float], rewards: Sequence[str], others: float = float("nan")) -> Tensor:
    """Levels by name -> (R,) in the order of `rewards`; those that are not named get `others`, NaN for no wish.

    Raises UnknownName for a reward that the model does not know, TastemakerError for a level outside [0, 1].
    """
    for name in wished:
        if name not in rewards:
            raise UnknownName("reward", name, rewards, "The model was not trained with it")
    vector = torch.tensor([wished.get(name, others) for name in rewards], dtype=torch.float32)
    require_levels(vector, rewards)
    return vector


def require_levels(levels: Tensor, rewards: Sequence[str]) -> None:
    """Raise TastemakerError unless levels (..., R) lie in [0, 1] or are NaN."""
    if levels.shape[-1] != len(rewards):
        raise TastemakerError(f"expected {len(rewards)} targets ({', '.join(rewards)}), got {levels.shape[-1]}")
    wrong = (levels < 0) | (levels > 1)
    if wrong.any():
        name = rewards[int(wrong.reshape(-1, len(rewards)).any(0).nonzero()[0])]
        raise TastemakerError(
            f"expected targets from 0, the lowest scores of the training data, to 1, the highest, or NaN for none; "
            f"got {levels[wrong][0].item():g} for '{name}'"
        )


def with_caption_kept(condition: Condition, positive: Tensor, negative: Tensor) -> Condition:
    """Ask every row for positive (R,), and give the other branch the same caption with negative (R,): the paper's."""
    return _asked(condition, positive, negative, condition.prompts)


def with_caption_emptied(condition: Condition, positive: Tensor, negative: Tensor) -> Condition:
    """As `with_caption_kept`, but without a caption in the other branch: the release's."""
    return _asked(condition, positive, negative, (Prompt(""),) * len(condition))


def with_null_condition(condition: Condition, positive: Tensor, negative: Tensor) -> Condition:
    """Ask every row for positive (R,); the other branch has no caption and no target: classifier-free guidance, in
    which negative has no part."""
    return replace(condition, targets=positive.expand(len(condition), -1), negative=None, cache={})


def _asked(condition: Condition, positive: Tensor, negative: Tensor, captions: tuple[Prompt, ...]) -> Condition:
    rows = len(condition)
    other = Condition(captions, torch.ones(rows), negative.expand(rows, -1))
    return replace(condition, targets=positive.expand(rows, -1), negative=other, cache={})


# feasible targets: from the levels (K, R) that training pictures had


def nearest_seen(wish: Tensor, seen: Tensor) -> Tensor:
    """(R,): of the pictures seen the levels of the one that is nearest to the wish (R,), by Euclidean distance over
    the rewards that are wished for (those not NaN); all R of them are then asked for.

    The corner where all rewards are highest may hold no picture at all; this moves a wish to where one is. Rows
    with a missing level are left out. Raises TastemakerError where no row is whole, or nothing is wished for.
    """
    known, said = _whole(seen), ~wish.isnan()
    if not said.any():
        raise TastemakerError("no target is given; expected a level for at least one reward")
    return known[(known[:, said] - wish[said]).pow(2).sum(1).argmin()]


def balanced_seen(seen: Tensor) -> Tensor:
    """(R,): the levels of the picture whose lowest level is highest, of equals the one with the highest sum."""
    known = _whole(seen)
    return known[_balance(known).argmax()]


def good_seen(seen: Tensor, share: float = 0.1) -> Tensor:
    """(R,): the mean levels of those pictures, a `share` of all, whose lowest level is highest.

    They are high, and near many pictures; the one best picture is near few, and asking for its levels costs whatever
    was not asked for (docs/miro.md has figures). Raises TastemakerError where no row is whole.
    """
    known = _whole(seen)
    return known[_balance(known).topk(math.ceil(share * len(known))).indices].mean(0)


def poorest_seen(seen: Tensor) -> Tensor:
    """(R,): the levels of the picture whose highest level is lowest, of equals the one with the lowest sum."""
    known = _whole(seen)
    return known[(known.amax(1) + 1e-3 * known.mean(1)).argmin()]


def _balance(known: Tensor) -> Tensor:
    """(K, R) -> (K,): by which pictures are ordered, the lowest level and, of equals, the mean."""
    return known.amin(1) + 1e-3 * known.mean(1)


def _whole(seen: Tensor) -> Tensor:
    known = seen[~seen.isnan().any(1)]
    if not len(known):
        raise TastemakerError(f"none of {len(seen)} training pictures had a score of every reward")
    return known
