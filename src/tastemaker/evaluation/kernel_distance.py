"""Kernel distance (KID): the squared maximum mean discrepancy under k(x, y) = (x . y / D + 1)^3
(Binkowski et al., arXiv 1801.01401, section 4). Features (N, D) and (M, D), any float type; computed in float64, a
block of features and of kernel values at a time.

Three estimators are in use and differ by O(1/N):
- `unbiased`: own pairs without the diagonal, all N M cross pairs (what papers report; also torch-fidelity's default);
- `u_statistic`: the cross pairs without those of equal index as well, for N = M;
- `biased`: everything with the diagonal, never negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError
from ..records import Interval
from .frechet import check_features

ROWS = 2048


def unbiased(a: Any, b: Any) -> float:
    """Its mean over draws is the squared discrepancy itself, so it may come out below 0. Needs 2 rows a side."""
    a, b = check_pair(a, b)
    return own_mean(a) + own_mean(b) - 2 * total(a, b) / (len(a) * len(b))


def biased(a: Any, b: Any) -> float:
    """The discrepancy of the two samples themselves, >= 0."""
    a, b = check_pair(a, b, least=1)
    return own_total(a) / len(a) ** 2 + own_total(b) / len(b) ** 2 - 2 * total(a, b) / (len(a) * len(b))


def u_statistic(a: Any, b: Any) -> float:
    """Unbiased too, over pairs (i, j) with i != j on all three terms. Needs as many rows on both sides."""
    a, b = check_pair(a, b)
    n = len(a)
    if len(b) != n:
        raise TastemakerError(f"the u-statistic needs as many rows on both sides, got {n} and {len(b)}; use unbiased")
    return own_mean(a) + own_mean(b) - 2 * (total(a, b) - diagonal(a, b)) / (n * (n - 1))


def over_subsets(a: Any, b: Any, draws: Iterable[tuple[NDArray, NDArray]], estimator=unbiased) -> NDArray:
    """The estimator on each pair of row sets (S,): report its mean and spread, as KID's paper does.

    draws: pairs of row indices into a and b, such as `random_subsets` gives.
    """
    a, b = check_pair(a, b)
    return np.array([estimator(a[i], b[j]) for i, j in draws])


def subset_mean(a: Any, b: Any, size: int = 1000, subsets: int = 100, seed: int = 0) -> Interval:
    """The mean of `unbiased` over random subsets +- 1.96 standard errors, as papers report it (100 subsets of 1,000).

    The interval is that of the choice of subsets alone. Raises as `random_subsets` does."""
    values = over_subsets(a, b, random_subsets(len(a), len(b), size, subsets, seed))
    mean = float(values.mean())
    reach = float(1.96 * values.std(ddof=1) / len(values) ** 0.5)
    return Interval(mean, mean - reach, mean + reach, subsets)


def random_subsets(n: int, m: int, size: int = 1000, subsets: int = 100, seed: int = 0) -> Iterator[tuple]:
    """`subsets` times `size` rows of n and of m, each drawn without replacement."""
    if size > min(n, m):
        raise TastemakerError(f"cannot draw subsets of {size} rows from {n} and {m}; choose a smaller size")
    rng = np.random.default_rng(seed)
    for _ in range(subsets):
        yield rng.choice(n, size, replace=False), rng.choice(m, size, replace=False)


def kernel(x: NDArray, y: NDArray) -> NDArray:
    """(N, D), (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def total(a: NDArray, b: NDArray) -> float:
    """The sum of all kernel values."""
    return float(sum(kernel(x, y).sum() for x in blocks(a) for y in blocks(b)))


def own_total(a: NDArray) -> float:
    """total(a, a) from half of the blocks."""
    lower = (kernel(x, y).sum() for i, x in enumerate(blocks(a)) for y in blocks(a[: i * ROWS]))
    return float(2 * sum(lower) + sum(kernel(x, x).sum() for x in blocks(a)))


def diagonal(a: NDArray, b: NDArray) -> float:
    return float(sum((((x * y).sum(1) / a.shape[1] + 1) ** 3).sum() for x, y in zip(blocks(a), blocks(b))))


def blocks(a: NDArray) -> Iterator[NDArray]:
    """In float64, so that the whole is never copied."""
    return (a[i : i + ROWS].astype(np.float64) for i in range(0, len(a), ROWS))


def own_mean(x: NDArray) -> float:
    return (own_total(x) - diagonal(x, x)) / (len(x) * (len(x) - 1))


def check_pair(a: Any, b: Any, least: int = 2) -> tuple[NDArray, NDArray]:
    a, b = check_features(a), check_features(b)
    check_features(b, a.shape[1])
    if min(len(a), len(b)) < least:
        raise TastemakerError(f"expected at least {least} feature rows on each side, got {len(a)} and {len(b)}")
    return a, b
