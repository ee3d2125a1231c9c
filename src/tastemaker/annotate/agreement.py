"""How far annotators agree: percent, Cohen, Fleiss, Krippendorff, Kendall's W. Numpy only.

Ratings are a table (A annotators, N items), NaN where an annotator did not answer. Chance-corrected figures are 1 for
perfect agreement, 0 for what chance gives, and negative below it; they are NaN where they are not defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..correlation import kendall, mean_ranks
from ..errors import TastemakerError

__all__ = [
    "Table",
    "table_of",
    "percent_agreement",
    "cohen",
    "cohen_of_counts",
    "fleiss",
    "randolph",
    "krippendorff",
    "krippendorff_of_counts",
    "kendall",
    "kendall_w",
]


@dataclass(frozen=True)
class Table:
    """values (A, N), NaN = missing; the labels behind the codes where the answers were words."""

    values: NDArray[np.float64]
    annotators: tuple[str, ...]
    items: tuple[Hashable, ...]


def table_of(answers: Iterable[tuple[str, Hashable, float]]) -> Table:
    """(annotator, item, value) -> table, annotators and items in the order of first mention; the later answer of an
    annotator on an item counts."""
    found = {(who, item): value for who, item, value in answers}
    people, items = list(dict.fromkeys(who for who, _ in found)), list(dict.fromkeys(item for _, item in found))
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (people, items))
    values = np.full((len(people), len(items)), np.nan)
    for (who, item), value in found.items():
        values[rows[who], columns[item]] = value
    return Table(values, tuple(people), tuple(items))


def _table(ratings: Any) -> NDArray[np.float64]:
    values = np.asarray(ratings, np.float64)
    if values.ndim != 2:
        raise TastemakerError(f"expected ratings of shape (annotators, items), got {values.shape}")
    return values


def value_counts(ratings: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, V) how often each item got each value, and the V values in ascending order."""
    values = _table(ratings)
    domain = np.unique(values[~np.isnan(values)])
    counts = np.array([(values == v).sum(0) for v in domain], np.float64).reshape(len(domain), values.shape[1])
    return counts.T, domain


def percent_agreement(ratings: Any) -> float:
    """The share of pairs of annotators who gave an item the same value, over all pairs of all items: what two people
    drawn at random from those who answered agree on."""
    counts, _ = value_counts(ratings)
    n = counts.sum(1)
    pairs = (n * (n - 1)).sum()
    return float((counts * (counts - 1)).sum() / pairs) if pairs else math.nan


# two annotators


def cohen(x: Any, y: Any, weights: str | None = None) -> float:
    """Kappa of two annotators (Cohen 1960) over the items that both answered; x, y (N,), NaN = missing.

    weights: None, "linear" or "quadratic" (Cohen 1968) by the place of the values in ascending order.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise TastemakerError(f"expected two rows of answers of one length, got shapes {x.shape} and {y.shape}")
    both = ~np.isnan(x) & ~np.isnan(y)
    domain, codes = np.unique(np.concatenate([x[both], y[both]]), return_inverse=True)
    a, b = np.split(codes.reshape(-1), 2)
    counts = np.zeros((len(domain), len(domain)))
    np.add.at(counts, (a, b), 1)
    return cohen_of_counts(counts, weights)


def cohen_of_counts(counts: Any, weights: str | None = None) -> float:
    """Kappa of a table (V, V): how often the first annotator said i while the second said j."""
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise TastemakerError(f"expected a square table of counts, got shape {counts.shape}")
    place = np.arange(len(counts))
    apart = np.abs(place[:, None] - place[None])
    costs = {None: (apart > 0).astype(float), "linear": apart.astype(float), "quadratic": apart.astype(float) ** 2}
    if weights not in costs:
        raise TastemakerError(f"expected weights None, 'linear' or 'quadratic', got {weights!r}")
    total = counts.sum()
    chance = np.outer(counts.sum(1), counts.sum(0)) / total if total else counts
    expected = (costs[weights] * chance).sum()
    return float(1 - (costs[weights] * counts).sum() / expected) if expected > 0 else math.nan


# any number of annotators


def _even(counts: Any) -> tuple[NDArray[np.float64], float]:
    counts = np.asarray(counts, np.float64)
    n = counts.sum(1) if counts.ndim == 2 else np.zeros(0)
    if not len(n) or (n != n[0]).any() or n[0] < 2:
        raise TastemakerError("expected counts (items, values) with as many answers, at least 2, for every item; "
                              "use krippendorff where some are missing")  # fmt: skip
    return counts, float(n[0])


def _observed(counts: NDArray, n: float) -> float:
    return float(((counts * (counts - 1)).sum(1) / (n * (n - 1))).mean())


def fleiss(counts: Any) -> float:
    """Fleiss' kappa (1971): counts (N, V), how many of the same number of annotators gave item i the value j."""
    counts, n = _even(counts)
    chance = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return (_observed(counts, n) - chance) / (1 - chance) if chance < 1 else math.nan


def randolph(counts: Any) -> float:
    """Randolph's free-marginal kappa (2005): chance is one over how many values there are, used or not."""
    counts, n = _even(counts)
    chance = 1 / counts.shape[1]
    return (_observed(counts, n) - chance) / (1 - chance) if chance < 1 else math.nan


Distance = Callable[[NDArray, NDArray], NDArray]  # (V,) values, (V,) how often each -> (V, V) squared distances


def _nominal(values: NDArray, often: NDArray) -> NDArray:
    return (values[:, None] != values[None]).astype(float)


def _ordinal(values: NDArray, often: NDArray) -> NDArray:
    """How many answers lie between two values, each end counted half."""
    middle = np.cumsum(often) - often / 2
    return (middle[:, None] - middle[None]) ** 2


def _interval(values: NDArray, often: NDArray) -> NDArray:
    return (values[:, None] - values[None]) ** 2


def _ratio(values: NDArray, often: NDArray) -> NDArray:
    total = values[:, None] + values[None]
    return np.divide(values[:, None] - values[None], total, out=np.zeros_like(total), where=total != 0) ** 2


LEVELS: dict[str, Distance] = {"nominal": _nominal, "ordinal": _ordinal, "interval": _interval, "ratio": _ratio}


def krippendorff(ratings: Any, level: str = "nominal") -> float:
    """Krippendorff's alpha (Content Analysis, 4th ed., chapter 12) with missing answers; ratings (A, N).

    level: nominal, ordinal, interval or ratio. Items with fewer than two answers say nothing and are left out. NaN
    where no item has two answers, or all answers are the same, since alpha is then not defined.
    """
    counts, values = value_counts(ratings)
    return krippendorff_of_counts(counts, level, values)


def krippendorff_of_counts(
    counts: Any, level: str = "nominal", values: Sequence[float] | NDArray | None = None
) -> float:
    """As `krippendorff`, from counts (N, V): how often item i got value j; values: default 1 .. V."""
    counts = np.asarray(counts, np.float64)
    if level not in LEVELS:
        raise TastemakerError(f"expected a level of {', '.join(LEVELS)}, got {level!r}")
    if counts.ndim != 2:
        raise TastemakerError(f"expected counts of shape (items, values), got {counts.shape}")
    domain = np.arange(1.0, counts.shape[1] + 1) if values is None else np.asarray(values, np.float64)
    n = counts.sum(1)
    counts, n = counts[n >= 2], n[n >= 2]
    together = np.einsum("iv,iw->vw", counts / (n - 1)[:, None], counts)  # (V, V) coincidences
    together -= np.diag((counts / (n - 1)[:, None]).sum(0))
    often = together.sum(1)
    distance = LEVELS[level](domain, often)
    total, expected = often.sum(), float((distance * np.outer(often, often)).sum())
    return float(1 - (total - 1) * (distance * together).sum() / expected) if expected > 0 else math.nan


def kendall_w(ranks: Any) -> float:
    """Kendall's W (Kendall & Babington Smith 1939), corrected for ties: ranks (A, N), all complete. 1 = one order."""
    values = _table(ranks)
    if np.isnan(values).any() or len(values) < 2 or values.shape[1] < 2:
        raise TastemakerError("expected at least 2 complete orders of at least 2 items, without missing ranks")
    people, items = values.shape
    ranked = np.stack([mean_ranks(row) for row in values])
    ties = sum((t**3 - t).sum() for t in (np.unique(row, return_counts=True)[1] for row in values))
    spread = ((ranked.sum(0) - people * (items + 1) / 2) ** 2).sum()
    size = people**2 * (items**3 - items) - people * ties
    return float(12 * spread / size) if size > 0 else math.nan


def mean_pairwise(rows: Mapping[str, NDArray], figure: Callable[[NDArray, NDArray], float]) -> float:
    """The mean of a figure of two annotators over all pairs who share at least two items, weighted by the number of
    items that they share; rows: annotator -> (N,), NaN = missing."""
    names, total, weight = list(rows), 0.0, 0
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = ~np.isnan(rows[first]) & ~np.isnan(rows[second])
            value = figure(rows[first][both], rows[second][both]) if both.sum() > 1 else math.nan
            if not math.isnan(value):
                total, weight = total + value * int(both.sum()), weight + int(both.sum())
    return total / weight if weight else math.nan
