"""95 % intervals: Wilson for shares, and a two-level bootstrap for everything else.

Pictures of one prompt are alike, so resampling draws prompts first and then pictures within each drawn prompt
(Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8). With few pictures per prompt this is
slightly too wide, never too narrow. A NaN is a measurement that failed: it is left out, a warning says how many, and
`Interval.count` holds what remained.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError
from ..records import Interval

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution
RESAMPLES = 4000


def wilson(successes: int, n: int) -> Interval:
    """The share successes / n with Wilson's score interval (Wilson 1927, JASA 22:209; also Brown et al. 2001).

    Raises TastemakerError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise TastemakerError(f"expected 0 <= successes <= n and n > 0, got {successes} of {n}")
    share, shrink = successes / n, Z95**2 / n
    middle = (share + shrink / 2) / (1 + shrink)
    half = Z95 * math.sqrt(share * (1 - share) / n + shrink / (4 * n)) / (1 + shrink)
    # at 0 and n the bounds are exactly 0 and 1; rounding must not put them past the value
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), n)


def bootstrap_mean(scores: Any, prompts: Any, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of scores (B,) over all pictures, resampled by prompt and then by picture.

    prompts (B,): integer or string ids, equal where two pictures share a prompt.
    Raises TastemakerError on other shapes, on float ids, and where fewer than two scores are left.
    """
    values, groups = finite([scores], prompts)
    return bootstrap(lambda rows: float(values[0][rows].mean()), groups, resamples, seed)


def paired_difference(a: Any, b: Any, prompts: Any, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """mean(a - b) for two models on the same prompts and seeds: row i of a and of b is one prompt and one seed.

    a, b, prompts: (B,). A pair with a NaN on either side is left out. Raises as `bootstrap_mean` does.
    """
    (a, b), groups = finite([a, b], prompts)
    return bootstrap(lambda rows: float((a[rows] - b[rows]).mean()), groups, resamples, seed)


def unpaired_difference(
    a: Any, a_prompts: Any, b: Any, b_prompts: Any, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """mean(a) - mean(b) for two sets that share nothing; a (A,), b (B,). Raises as `bootstrap_mean` does."""
    (a,), a_groups = finite([a], a_prompts)
    (b,), b_groups = finite([b], b_prompts)
    draws = zip(draw_rows(a_groups, resamples, seed), draw_rows(b_groups, resamples, seed + 1))
    return summarise(a.mean() - b.mean(), [a[i].mean() - b[j].mean() for i, j in draws], len(a) + len(b))


def spearman(x: Any, y: Any, prompts: Any = None, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Spearman's rank correlation of x (B,) and y (B,), ties at their mean rank.

    prompts (B,): resample by prompt and then by picture; None: every row is its own.
    Raises as `bootstrap_mean` does, and where x or y is constant.
    """
    (x, y), groups = finite([x, y], np.arange(len(x)) if prompts is None else prompts)
    x, y = (np.unique(v, return_inverse=True)[1] for v in (x, y))
    if x.max() == 0 or y.max() == 0:
        raise TastemakerError("a rank correlation needs values that differ; all of one side are equal")
    return bootstrap(lambda rows: correlation(mean_ranks(x[rows]), mean_ranks(y[rows])), groups, resamples, seed)


def bootstrap(
    statistic: Callable[[NDArray], float], groups: NDArray, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The percentile interval of statistic(rows), where rows (B,) index pictures; groups (B,) from `finite`."""
    draws = [statistic(rows) for rows in draw_rows(groups, resamples, seed)]
    return summarise(statistic(np.arange(len(groups))), draws, len(groups))


def draw_rows(groups: NDArray, resamples: int, seed: int) -> Iterator[NDArray]:
    """Resampled row indices: as many prompts as there are, with replacement, and in each as many pictures as it has.

    groups (B,): 0 .. G - 1, every one present.
    """
    rng = np.random.default_rng(seed)
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    for _ in range(resamples):
        drawn = rng.integers(len(sizes), size=len(sizes))
        size = np.repeat(sizes[drawn], sizes[drawn])
        inside = (rng.random(len(size)) * size).astype(np.int64)
        yield order[np.repeat(starts[drawn], sizes[drawn]) + inside]


def finite(columns: list[Any], prompts: Any) -> tuple[list[NDArray], NDArray]:
    """float64 columns without the rows in which any is NaN, and the prompts as 0 .. G - 1."""
    arrays, ids = [np.asarray(c, np.float64) for c in columns], np.asarray(prompts)
    shapes = [a.shape for a in arrays] + [ids.shape]
    if ids.ndim != 1 or len(set(shapes)) != 1:
        raise TastemakerError(f"expected scores and prompt ids of one length, one per picture; got shapes {shapes}")
    if ids.dtype.kind == "f":
        raise TastemakerError("prompt ids are integers or strings; got floats, which cannot be compared safely")
    keep = ~np.isnan(arrays).any(0)
    if not keep.all():
        warnings.warn(f"{(~keep).sum()} of {len(keep)} measurements are missing and left out", stacklevel=3)
    if keep.sum() < 2:
        raise TastemakerError(f"an interval needs at least 2 scores that are not NaN, got {keep.sum()}")
    return [a[keep] for a in arrays], np.unique(ids[keep], return_inverse=True)[1]


def summarise(value: float, draws: list[float], count: int) -> Interval:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(float(value), float(low), float(high), count)


def mean_ranks(codes: NDArray) -> NDArray:
    """Ranks from 1, ties at their mean; codes: small integers in the order of the values."""
    sizes = np.bincount(codes)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[codes]


def correlation(x: NDArray, y: NDArray) -> float:
    """Pearson's; NaN where a resample happens to be constant."""
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size else math.nan
