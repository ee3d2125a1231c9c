"""What a Fréchet distance would be if nothing were wrong: that of real pictures to other real pictures.

A distance of N pictures to a reference is above 0 even for a perfect generator, by about 1 / N times a constant of
the space. Improvements are ratios of what lies above that floor, at the same N; see `Floor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import expect
from .frechet import Moments, check_features, combine, factor, frechet_distance_of_features

DRAWS = 4


@dataclass(frozen=True)
class Floor:
    """Two distances of equally many pictures: of generated ones to real ones, and of real ones to these real ones."""

    distance: float
    floor: float
    count: int  # pictures on the generated side, and as many real ones in their place
    how: str  # which pictures the floor is measured on

    @property
    def excess(self) -> float:
        """What lies above the floor; it may come out below 0 for a generator as good as new real pictures."""
        return self.distance - self.floor

    @property
    def ratio(self) -> float:
        """The distance in units of the floor; 1 is the best there is."""
        return self.distance / self.floor if self.floor > 0 else float("nan")


def floor_of_halves(real: Any, generated: Any, count: int | None = None, draws: int = DRAWS, seed: int = 0) -> Floor:
    """From features real (M, D) and generated (N, D). The real ones are split at random into two disjoint sets of n;
    n generated ones and the first set are both measured against the second; the means over `draws` splits.

    n = min(N, M // 2), and at most `count` where it is given (so that two generators are measured at one n).
    Raises TastemakerError where n is below 2.
    """
    real, generated = check_features(real), check_features(generated)
    n = min(len(generated), len(real) // 2, count or len(generated))
    expect(n >= 2, "4 real and 2 generated pictures or more for a floor", f"{len(real)} and {len(generated)}")
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(draws):
        order = rng.permutation(len(real))
        others = real[order[n : 2 * n]]
        chosen = generated if n == len(generated) else generated[rng.choice(len(generated), n, replace=False)]
        pairs.append([frechet_distance_of_features(x, others) for x in (chosen, real[order[:n]])])
    distance, floor = np.mean(pairs, 0)
    return Floor(float(distance), float(floor), n, f"two disjoint halves of the reference, mean of {draws} splits")


def floor_of_gaussian(
    reference: Moments, known: int | None, distance: float, count: int, draws: int = DRAWS, seed: int = 0
) -> Floor:
    """Where only moments are at hand: `count` rows drawn from the reference's own Gaussian against as many as the
    reference has (`known`), or against its moments themselves where that is None; the mean over `draws`.

    Real features have heavier tails than a Gaussian, so that the true floor is somewhat higher.
    distance: that of the `count` generated pictures to the reference. Raises TastemakerError where count is below 2.
    """
    expect(count >= 2 and (known is None or known >= 2), "2 pictures or more for a floor", f"{count} and {known}")
    root, rng, nothing = factor(reference), np.random.default_rng(seed), np.zeros(len(reference.mean))
    found = []
    for _ in range(draws):
        mean, ours = gaussian_sample(root, count, rng)
        other_mean, theirs = (nothing, root) if known is None else gaussian_sample(root, known, rng)
        found.append(combine(mean - other_mean, ours, theirs))
    against = "its own moments" if known is None else f"{known} such rows"
    how = f"rows drawn from the reference's Gaussian against {against}, mean of {draws} draws"
    return Floor(distance, float(np.mean(found)), count, how)


def gaussian_sample(root: NDArray, count: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Mean (D,) and factor (D, Q) of the sample covariance of `count` rows of N(0, root root^T), root (D, R), without
    drawing the rows: Bartlett's decomposition of a Wishart matrix (Odell & Feiveson 1966)."""
    rank, free = root.shape[1], count - 1
    mean = root @ rng.standard_normal(rank) / np.sqrt(count)
    if free < rank:
        spread = rng.standard_normal((rank, free))
    else:
        spread = np.tril(rng.standard_normal((rank, rank)), -1)
        spread[np.diag_indices(rank)] = np.sqrt(rng.chisquare(free - np.arange(rank)))
    return mean, root @ spread / np.sqrt(free)
