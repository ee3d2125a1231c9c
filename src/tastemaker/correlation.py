"""Correlations of two rows of numbers, ties and all: Pearson's, Spearman's, Kendall's tau-b and tau-c. Numpy only.

All give NaN where a side is constant, since its order then says nothing.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import TastemakerError


def two_rows(x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 (N,) each. Raises TastemakerError unless both have one length of at least 2 and no NaN."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise TastemakerError(f"expected two rows of one length of at least 2, got shapes {x.shape} and {y.shape}")
    if np.isnan(x).any() or np.isnan(y).any():
        raise TastemakerError("a correlation needs numbers on both sides; leave the missing ones out first")
    return x, y


def pearson(x: Any, y: Any) -> float:
    x, y = two_rows(x, y)
    if (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return float(np.clip(x @ y / size, -1, 1)) if size else math.nan


def mean_ranks(values: Any) -> NDArray[np.float64]:
    """(N,) ranks from 1, ties at their mean rank."""
    return ranks_of_codes(np.unique(np.asarray(values), return_inverse=True)[1])


def ranks_of_codes(codes: NDArray) -> NDArray[np.float64]:
    """As `mean_ranks`, of small whole numbers from 0 in the order of the values: without sorting."""
    sizes = np.bincount(codes)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[codes]


def spearman(x: Any, y: Any) -> float:
    """Pearson's of the ranks, ties at their mean rank."""
    x, y = two_rows(x, y)
    return pearson(mean_ranks(x), mean_ranks(y))


def tied_pairs(*columns: NDArray) -> int:
    """How many pairs of rows are equal in every column."""
    sizes = np.unique(np.stack(columns), axis=1, return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def inversions(codes: NDArray) -> int:
    """How many pairs i < j have codes[i] > codes[j]; codes: whole numbers from 0. O(N log N).

    Bit by bit from the highest: among rows that agree in all higher bits, a row with bit 1 before one with bit 0 is
    an inversion.
    """
    codes, found = codes.astype(np.int64), 0
    for bit in range(max(1, int(codes.max()).bit_length()) - 1, -1, -1):
        ones = codes >> bit & 1
        before = np.cumsum(ones) - ones  # ones so far
        starts = np.flatnonzero(np.diff(codes >> bit + 1, prepend=-1))
        sizes = np.diff(np.append(starts, len(codes)))
        found += int((before - np.repeat(before[starts], sizes))[ones == 0].sum())
        codes = codes[np.argsort(codes >> bit, kind="stable")]
    return found


def concordance(x: Any, y: Any) -> tuple[int, int, int, int, int]:
    """Pairs of rows: (concordant, discordant, tied in x alone, tied in y alone, tied in both)."""
    x, y = two_rows(x, y)
    x, y = (np.unique(v, return_inverse=True)[1] for v in (x, y))
    order = np.lexsort((y, x))  # ties of x in the order of y: no inversions among them
    total = len(x) * (len(x) - 1) // 2
    in_x, in_y, both = tied_pairs(x), tied_pairs(y), tied_pairs(x, y)
    discordant = inversions(y[order])
    return total - in_x - in_y + both - discordant, discordant, in_x - both, in_y - both, both


def kendall(x: Any, y: Any) -> float:
    """Tau-b (Kendall 1945, Biometrika 33:239): (concordant - discordant) over the geometric mean of the pairs that
    are not tied in x and those not tied in y."""
    concordant, discordant, in_x, in_y, _ = concordance(x, y)
    untied = concordant + discordant
    size = math.sqrt((untied + in_y) * (untied + in_x))
    return (concordant - discordant) / size if size else math.nan


def kendall_c(x: Any, y: Any) -> float:
    """Stuart's tau-c (1953, Biometrika 40:105), for tables of different numbers of rows and columns."""
    concordant, discordant, *_ = concordance(x, y)
    least = min(len(np.unique(x)), len(np.unique(y)))
    return 2 * (concordant - discordant) / (len(x) ** 2 * (least - 1) / least) if least > 1 else math.nan


def kendall_p(x: Any, y: Any) -> float:
    """Two-sided p-value of "no association". Exact without ties up to 33 rows (or next to a perfect order), by the
    counts of permutations with so many inversions; else normal, with the variance under ties (Kendall 1970, 5.6)."""
    concordant, discordant, in_x, in_y, both = concordance(x, y)
    least = min(concordant, discordant)
    if math.isnan(kendall(x, y)):
        return math.nan
    if not in_x + in_y + both and (len(x) <= 33 or least <= 1):
        return _exact(len(x), least)
    return math.erfc(abs(concordant - discordant) / math.sqrt(2 * _variance(np.asarray(x), np.asarray(y))))


def _exact(n: int, least: int) -> float:
    """Twice the share of the n! orders that have at most `least` inversions."""
    counts = [1] + [0] * least  # orders of m things by their inversions, up to `least`
    for m in range(2, n + 1):
        sums = [0, *accumulate(counts)]
        counts = [sums[i + 1] - sums[max(0, i + 1 - m)] for i in range(least + 1)]
    return min(1.0, float(Fraction(2 * sum(counts), math.factorial(n))))


def _variance(x: NDArray, y: NDArray) -> float:
    n, (tx, ty) = len(x), (np.unique(v, return_counts=True)[1].astype(float) for v in (x, y))
    whole, a, b = n * (n - 1) * (2 * n + 5), *((t * (t - 1) * (2 * t + 5)).sum() for t in (tx, ty))
    pairs = (tx * (tx - 1)).sum() * (ty * (ty - 1)).sum() / (2 * n * (n - 1))
    threes = (tx * (tx - 1) * (tx - 2)).sum() * (ty * (ty - 1) * (ty - 2)).sum()
    return float((whole - a - b) / 18 + pairs + (threes / (9 * n * (n - 1) * (n - 2)) if n > 2 else 0.0))
