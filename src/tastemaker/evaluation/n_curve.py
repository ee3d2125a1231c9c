"""Does choosing among more candidates help, by a judge who does not choose? Selection by verifier A, report by B.

For every n up to the N that were drawn, over all choices of n of them: the report of the one that A likes best. With
a verifier that can be exploited the curve rises, peaks and falls (arXiv 2604.04648). Letters: P prompts, N
candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError
from ..records import Interval
from .intervals import bootstrap_mean, paired_difference
from .of_n import best_of, counts


@dataclass(frozen=True)
class Peak:
    """Where a curve is highest, and what the most candidates lose against it."""

    n: int
    value: Interval
    fall: Interval | None  # report at N less report at the peak, paired by prompt; None where the peak is at N

    @property
    def exploited(self) -> bool:
        """The fall is certain: its whole interval is below 0."""
        return self.fall is not None and self.fall.high < 0


def reports_of(select: Any, report: Any) -> dict[int, NDArray]:
    """n = 1, 2, 4 ... N -> (P,) the mean report of the choice. select, report (P, N): NaN in `select` cannot win; a
    prompt with a NaN in `report` is left out. Raises TastemakerError for other shapes, or where no prompt is left."""
    select, report = np.asarray(select, np.float64), np.asarray(report, np.float64)
    if select.ndim != 2 or select.shape != report.shape:
        raise TastemakerError(f"expected scores (P, N) by both judges, got {select.shape} and {report.shape}")
    known = ~np.isnan(report).any(1) & ~np.isnan(select).all(1)
    if not known.any():
        raise TastemakerError("no prompt has scores by both judges for all of its candidates")
    rows = list(zip(report[known], select[known]))
    return {n: np.array([best_of(list(b), list(a), n) for b, a in rows]) for n in counts(select.shape[1])}


def curve_of(reports: Mapping[int, NDArray]) -> dict[int, Interval]:
    """n -> the mean over prompts; intervals resample prompts. Needs two prompts."""
    return {n: bootstrap_mean(values, np.arange(len(values))) for n, values in reports.items()}


def peak_of(reports: Mapping[int, NDArray]) -> Peak:
    """The highest mean, the smallest n of equals."""
    means = {n: float(values.mean()) for n, values in reports.items()}
    top, most = max(means, key=lambda n: (means[n], -n)), max(means)
    rows = np.arange(len(reports[top]))
    fall = None if top == most else paired_difference(reports[most], reports[top], rows)
    return Peak(top, bootstrap_mean(reports[top], rows), fall)
