"""95 % intervals: Wilson for shares, and a two-level bootstrap for everything else.

Pictures of one prompt are alike, so resampling draws prompts first and then pictures within each drawn prompt
(Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8). With few pictures per prompt this is
slightly too wide, never too narrow. A NaN is a measurement that failed: it is left out, a warning says how many, and
`Interval.count` holds what remained.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..correlation import pearson, ranks_of_codes
from ..errors import TastemakerError
from ..records import Interval
from ..shares import wilson as wilson

RESAMPLES = 4000
ROWS = 1 << 19  # rows drawn at a time
Statistic = Callable[[NDArray, NDArray, int], NDArray]  # see draw_rows; -> one value per resample


def bootstrap_mean(scores: Any, prompts: Any, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of scores (B,) over all pictures, resampled by prompt and then by picture.

    prompts (B,): integer or string ids, equal where two pictures share a prompt.
    Raises TastemakerError on other shapes, on float ids, and where fewer than two scores are left.
    """
    (scores,), groups = finite([scores], prompts)
    return bootstrap(means(scores), groups, resamples, seed)


def paired_difference(a: Any, b: Any, prompts: Any, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """mean(a - b) for two models on the same prompts and seeds: row i of a and of b is one prompt and one seed.

    a, b, prompts: (B,). A pair with a NaN on either side is left out. Raises as `bootstrap_mean` does.
    """
    (a, b), groups = finite([a, b], prompts)
    return bootstrap(means(a - b), groups, resamples, seed)


def unpaired_difference(
    a: Any, a_prompts: Any, b: Any, b_prompts: Any, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """mean(a) - mean(b) for two sets that share nothing; a (A,), b (B,). Raises as `bootstrap_mean` does."""
    (a,), a_groups = finite([a], a_prompts)
    (b,), b_groups = finite([b], b_prompts)
    draws = resampled(means(a), a_groups, resamples, seed) - resampled(means(b), b_groups, resamples, seed + 1)
    return summarise(a.mean() - b.mean(), draws, len(a) + len(b))


def spearman(x: Any, y: Any, prompts: Any = None, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Spearman's rank correlation of x (B,) and y (B,), ties at their mean rank.

    prompts (B,): resample by prompt and then by picture; None: every row is its own.
    Raises as `bootstrap_mean` does, and where x or y is constant.
    """
    (x, y), groups = finite([x, y], np.arange(len(x)) if prompts is None else prompts)
    x, y = (np.unique(v, return_inverse=True)[1] for v in (x, y))
    if x.max() == 0 or y.max() == 0:
        raise TastemakerError("a rank correlation needs values that differ; all of one side are equal")

    by_part = of_parts(lambda a, b: pearson(ranks_of_codes(a), ranks_of_codes(b)), x, y)
    return bootstrap(by_part, groups, resamples, seed)


def of_parts(figure: Callable[[NDArray, NDArray], float], x: NDArray, y: NDArray) -> Statistic:
    """figure(x, y) of the rows of each resample; x, y (B,)."""

    def statistic(rows: NDArray, which: NDArray, count: int) -> NDArray:
        parts = np.split(rows, np.flatnonzero(np.diff(which)) + 1)
        return np.array([figure(x[part], y[part]) for part in parts])

    return statistic


def means(values: NDArray) -> Statistic:
    """The mean of values (B,) in each resample."""

    def statistic(rows: NDArray, which: NDArray, count: int) -> NDArray:
        return np.bincount(which, values[rows], count) / np.bincount(which, minlength=count)

    return statistic


def bootstrap(statistic: Statistic, groups: NDArray, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The percentile interval of a statistic; groups (B,): the prompt of each row as `finite` numbers them."""
    rows = np.arange(len(groups))
    value = statistic(rows, np.zeros_like(rows), 1)[0]
    return summarise(value, resampled(statistic, groups, resamples, seed), len(groups))


def resampled(statistic: Statistic, groups: NDArray, resamples: int, seed: int) -> NDArray:
    """(resamples,) values of the statistic."""
    return np.concatenate([statistic(*draw) for draw in draw_rows(groups, resamples, seed)])


def draw_rows(groups: NDArray, resamples: int, seed: int) -> Iterator[tuple[NDArray, NDArray, int]]:
    """Row indices of a few resamples at a time, the resample (0 .. count - 1, ascending) of each, and the count.

    A resample has as many prompts as there are, with replacement, and in each as many pictures as it has.
    groups (B,): 0 .. G - 1, every one present.
    """
    rng = np.random.default_rng(seed)
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups)
    starts, at_a_time = np.cumsum(sizes) - sizes, max(1, ROWS // len(groups))
    for done in range(0, resamples, at_a_time):
        count = min(at_a_time, resamples - done)
        drawn = rng.integers(len(sizes), size=(count, len(sizes)))
        pictures = sizes[drawn]
        size = np.repeat(pictures, pictures.reshape(-1))
        inside = (rng.random(len(size)) * size).astype(np.int64)
        rows = order[np.repeat(starts[drawn], pictures.reshape(-1)) + inside]
        yield rows, np.repeat(np.arange(count), pictures.sum(1)), count


def finite(columns: list[Any], prompts: Any) -> tuple[list[NDArray], NDArray]:
    """float64 columns without the rows in which any is NaN, and the prompts as 0 .. G - 1."""
    arrays, ids = [np.asarray(c, np.float64) for c in columns], np.asarray(prompts)
    shapes = [a.shape for a in arrays] + [ids.shape]
    if ids.ndim != 1 or len(set(shapes)) != 1:
        raise TastemakerError(f"expected scores and prompt ids of one length, one per picture; got shapes {shapes}")
    if ids.dtype.kind == "f":
        raise TastemakerError("prompt ids are integers or strings; got floats, which cannot be compared safely")
    keep = np.logical_not(np.any(np.isnan(np.stack(arrays)), axis=0))
    if not keep.all():
        warnings.warn(f"{(~keep).sum()} of {len(keep)} measurements are missing and left out", stacklevel=3)
    if keep.sum() < 2:
        raise TastemakerError(f"an interval needs at least 2 scores that are not NaN, got {keep.sum()}")
    return [a[keep] for a in arrays], np.unique(ids[keep], return_inverse=True)[1]


def summarise(value: float, draws: NDArray, count: int) -> Interval:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(float(value), float(low), float(high), count)
