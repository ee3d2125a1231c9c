"""How far drl.py's generators are from clean drawings: Frechet distance above its floor, kernel distance, coverage.

A distance of N pictures to a reference is above 0 for any generator. The floor is that of N other clean drawings to
the same reference, and a ratio is one of what lies above it: (base - floor) / (tuned - floor). Every figure of a set
of pictures is a vector (J,): on all of them, and without each group of prompts in turn, the same groups for every
set. Figures of figures are computed on such vectors, and their intervals are those of a delete-a-group jackknife
(Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 11): a bootstrap's repeated rows would themselves
move a distance. Letters: N pictures, D features, S seeds, J = 1 + GROUPS.
"""

from __future__ import annotations

from collections.abc import Sequence
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
TINY = 1e-9  # of a distance
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


def left_out(texts: Sequence[str]) -> list[NDArray]:
    """J sets of rows: all, and without each group; equal words share a group."""
    groups = in_groups(texts, GROUPS).numpy()
    return [np.arange(len(groups)), *(np.flatnonzero(groups != k) for k in range(GROUPS))]


def interval(values: NDArray, count: int) -> Interval:
    """values (J,) of one figure; count: N."""
    whole, parts = float(values[0]), values[1:]
    error = float(np.sqrt((GROUPS - 1) / GROUPS * ((parts - parts.mean()) ** 2).sum()))
    return Interval(whole, whole - T_95 * error, whole + T_95 * error, count)


def ratio_interval(logs: NDArray, count: int) -> Interval:
    """Of a ratio whose logarithm is (J,)."""
    inner = interval(logs, count)
    return Interval(*(float(np.exp(v)) for v in (inner.value, inner.low, inner.high)), inner.count)


def figures_of(features: NDArray, reference: Reference, sets: Sequence[NDArray]) -> dict[str, list[float]]:
    """`distance` and `coverage`, each (J,), of features (N, D)."""
    found = [features[rows] for rows in sets]
    return {
        "distance": [reference.distance(one) for one in found],
        "coverage": [prdc(reference.real, one, NEAREST["coverage"])["coverage"] for one in found],
    }


def beside_of(features: NDArray, reference: Reference) -> dict[str, float]:
    """On all pictures: the squared discrepancy, precision and recall with k = 3, density with k = 5."""
    by_k = {k: prdc(reference.real, features, k) for k in set(NEAREST.values())}
    return {"kernel": unbiased(reference.real, features), **{name: by_k[k][name] for name, k in NEAREST.items()}}


def log_ratio(base: NDArray, tuned: Sequence[NDArray], floor: NDArray) -> NDArray:
    """(J,) of distances (J,): base over the mean of the tuned ones, both above the floor. A tuned generator at the
    floor makes it very large."""
    over = np.mean(tuned, 0) - floor
    return np.log(np.maximum(base - floor, TINY)) - np.log(np.maximum(over, TINY))
