"""The one function that guides: out_minus + g (out_plus - out_minus); g = 1 means none.

The w of MIRO and Show-o is g - 1. The negative branch is `condition.negative`, or the null condition where that
is None (classifier-free guidance, Ho & Salimans, arXiv 2207.12598). A row with g = 1 costs one evaluation, not two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..protocols import Condition


def negative_of(condition: Condition) -> Condition:
    """The condition of the other branch: the given one, or the null condition."""
    return condition.null() if condition.negative is None else condition.negative


def guide(negative: Tensor, positive: Tensor, guidance: Tensor) -> Tensor:
    """(B, ...), (B, ...), (B,) -> (B, ...)."""
    return negative + guidance.to(negative).reshape(-1, *[1] * (negative.ndim - 1)) * (positive - negative)


def guided(
    predict: Callable[[Tensor, Tensor, Condition], Tensor],
    prepare: Callable[[Condition], Condition],
    x: Tensor,
    t: Tensor,
    condition: Condition,
) -> Tensor:
    """predict(x, t, condition) with guidance, in one batched call over both branches of the rows that need it."""
    rows = (condition.guidance != 1).nonzero()[:, 0]
    plain = replace(condition, negative=None)
    if len(rows) == 0:
        return predict(x, t, plain)
    negative = prepare(negative_of(condition)[rows])
    both = Condition.concatenate([plain, replace(negative, negative=None)])
    at = rows.to(x.device)
    out = predict(torch.cat([x, x[at]]), torch.cat([t, t[at]]), both)
    positive, other = out[: len(x)], out[len(x) :]
    return positive.index_copy(0, at, guide(other, positive[at], condition.guidance[rows]))
