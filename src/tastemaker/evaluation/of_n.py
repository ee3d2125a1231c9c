"""How GenEval grows with N pictures a prompt, from the n >= N that were drawn, every choice of N of them counted.

any-of-N   at least one of N is right: 1 - C(n - c, N) / C(n, N) with c right ones (Chen et al. 2021, Eq. 1,
           arXiv 2107.03374), unbiased; an oracle's selection, so no selector can do better
best-of-N  the one that a reward likes best is right: the r-th best of n (r from 0) is the best of N with probability
           C(n - 1 - r, N - 1) / C(n, N)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError
from ..records import Interval, Prompt
from .geneval import over_tasks, settle, task_codes


def any_of(correct: Sequence[float], k: int) -> float:
    """The chance that k of these pictures, drawn without replacement, have a right one. correct (n,) of 0 and 1."""
    n = check_count(len(correct), k)
    return 1 - math.comb(n - sum(value > 0 for value in correct), k) / math.comb(n, k)


def best_of(correct: Sequence[float], scores: Sequence[float], k: int) -> float:
    """The chance that the best by `scores` (n,) of k pictures drawn without replacement is right.

    Pictures of equal score share their places. A NaN cannot win; where all k are NaN nothing is chosen: not right.
    """
    n = check_count(len(correct), k)
    order = sorted((i for i in range(n) if not math.isnan(scores[i])), key=lambda i: -scores[i])
    total, place = 0.0, 0
    for _, group in groupby(order, key=lambda i: scores[i]):
        right = [correct[i] for i in group]
        chances = [math.comb(n - 1 - r, k - 1) for r in range(place, place + len(right))]
        total += sum(chances) * sum(right) / len(right)
        place += len(right)
    return total / math.comb(n, k)


def check_count(n: int, k: int) -> int:
    if not 1 <= k <= n:
        raise TastemakerError(f"expected 1 <= N <= {n}, the pictures of a prompt, got N = {k}")
    return n


def any_of_curve(prompts: Sequence[Prompt], correct: Any) -> dict[int, Interval]:
    """N -> mean over tasks of the mean over prompts, for N = 1, 2, 4 ... and the fewest pictures of a prompt.

    correct (B,): as `geneval.check_images` gives it. Intervals resample prompts.
    """
    right, _ = settle(correct, len(prompts))
    return curve(prompts, lambda rows, k: any_of(right[rows].tolist(), k))


def best_of_curve(prompts: Sequence[Prompt], correct: Any, scores: Any) -> dict[int, Interval]:
    """As `any_of_curve`, the picture chosen by scores (B,), NaN where there is none."""
    right, _ = settle(correct, len(prompts))
    values = np.asarray(scores, np.float64)
    if values.shape != right.shape:
        raise TastemakerError(f"expected one score per picture, ({len(right)},); got {values.shape}")
    return curve(prompts, lambda rows, k: best_of(right[rows].tolist(), values[rows].tolist(), k))


def curve(prompts: Sequence[Prompt], figure: Callable[[NDArray, int], float]) -> dict[int, Interval]:
    """figure(rows of one prompt, N) over all prompts."""
    tasks, groups = task_codes(prompts)
    rows = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    of_prompt = np.array([tasks[own[0]] for own in rows])
    found = {}
    for k in counts(min(map(len, rows))):
        values = np.array([figure(own, k) for own in rows])
        found[k] = over_tasks(values, of_prompt, np.arange(len(rows)))
    return found


def counts(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({2**i for i in range(most.bit_length())} | {most})
