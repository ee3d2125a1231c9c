"""How far drl.py's generators are from clean drawings: Frechet distance above its floor, kernel distance, coverage.

A distance of N pictures to a reference is above 0 for any generator. The floor is that of N other clean drawings to
the same reference, and a ratio is one of what lies above it: (base - floor) / (tuned - floor). Intervals are those of
a delete-a-group jackknife over the prompts (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 11): a
bootstrap's repeated rows would themselves move these figures. Letters: N pictures, D features, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluation.frechet import combine, mean_and_factor
from tastemaker.evaluation.kernel_distance import unbiased
from tastemaker.evaluation.prdc import prdc
from tastemaker.records import Interval

from .drl_pictures import REAL, Drawn, in_groups

GROUPS = 8
T_95 = 2.365  # two-sided, with GROUPS - 1 degrees of freedom
NEAREST = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}  # k, as in the paper


@dataclass(frozen=True)
class Reference:
    """One space: the clean drawings that all are compared with, and N others for the floor."""

    real: NDArray  # (REAL N, D)
    floor: NDArray  # (N, D)
    mean: NDArray
    factor: NDArray

    @classmethod
    def of(cls, clean: Drawn, space: str) -> Reference:
        features = clean.features[space].numpy()
        count = len(features) // (REAL + 1)
        mean, factor = mean_and_factor(features[: REAL * count])
        return cls(features[: REAL * count], features[REAL * count :], mean, factor)

    def distance(self, features: NDArray) -> float:
        mean, factor = mean_and_factor(features)
        return combine(mean - self.mean, self.factor, factor)


def jackknife(figure: Callable[[NDArray], float], groups: NDArray) -> Interval:
    """figure: of rows (n,) int; groups (N,): which rows leave together."""
    whole = figure(np.arange(len(groups)))
    parts = np.array([figure(np.flatnonzero(groups != k)) for k in range(GROUPS)])
    error = float(np.sqrt((GROUPS - 1) / GROUPS * ((parts - parts.mean()) ** 2).sum()))
    return Interval(whole, whole - T_95 * error, whole + T_95 * error, len(groups))


def groups_of(texts: Sequence[str]) -> NDArray:
    return in_groups(texts, GROUPS).numpy()


def excess_ratio(
    base: NDArray, tuned: Sequence[NDArray], reference: Reference, texts: Sequence[str]
) -> tuple[Interval, list[float], dict[str, float]]:
    """Base over tuned, both above the floor, the tuned ones' mean over seeds; the ratio of each seed; and distances.

    base (N, D), tuned S of them. Where a tuned generator is at the floor, the ratio is infinite.
    """

    def distances(rows: NDArray) -> NDArray:  # of floor, base and every seed
        sets = (reference.floor, base, *tuned)
        return np.array([reference.distance(features[rows]) for features in sets])

    def log_ratio(found: NDArray) -> float:
        over = found[1:] - found[0]
        return float(np.log(over[0] / max(over[1:].mean(), 1e-9)))

    inner = jackknife(lambda rows: log_ratio(distances(rows)), groups_of(texts))
    whole = distances(np.arange(len(base)))
    ratio = Interval(float(np.exp(inner.value)), float(np.exp(inner.low)), float(np.exp(inner.high)), inner.count)
    each = ((whole[1] - whole[0]) / np.maximum(whole[2:] - whole[0], 1e-9)).tolist()
    return ratio, each, {"floor": float(whole[0]), "base": float(whole[1]), "tuned": float(whole[2:].mean())}


def excess(features: NDArray, reference: Reference) -> float:
    return reference.distance(features) - reference.distance(reference.floor)


def kernel_distances(base: NDArray, tuned: Sequence[NDArray], reference: Reference) -> dict[str, float]:
    """Squared discrepancies: of other clean drawings, the base, and the tuned ones' mean."""
    found = [unbiased(reference.real, features) for features in (reference.floor, base, *tuned)]
    return {"floor": found[0], "base": found[1], "tuned": float(np.mean(found[2:]))}


def neighbours(features: NDArray, reference: Reference) -> dict[str, float]:
    """Precision and recall with k = 3, density and coverage with k = 5."""
    by_k = {k: prdc(reference.real, features, k) for k in set(NEAREST.values())}
    return {name: by_k[k][name] for name, k in NEAREST.items()}


def coverage_change(
    base: NDArray, tuned: Sequence[NDArray], reference: Reference, texts: Sequence[str]
) -> tuple[Interval, list[float]]:
    """The tuned ones' mean minus the base's, and that of each seed."""

    def changes(rows: NDArray) -> list[float]:
        before = prdc(reference.real, base[rows], NEAREST["coverage"])["coverage"]
        return [prdc(reference.real, f[rows], NEAREST["coverage"])["coverage"] - before for f in tuned]

    return jackknife(lambda rows: float(np.mean(changes(rows))), groups_of(texts)), changes(np.arange(len(base)))
