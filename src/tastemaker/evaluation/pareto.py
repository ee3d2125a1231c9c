"""Trade-offs of two figures or more: which points nothing beats, and the area that a front dominates.

On every axis higher is better; turn the sign of an axis on which lower is. The dominated area is the hypervolume of
Zitzler & Thiele 1998 for two axes, computed exactly. Letters: P points, A axes, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError, expect
from ..records import Interval
from .intervals import RESAMPLES, summarise


def non_dominated(points: Any) -> NDArray[np.bool_]:
    """(P,) whether no other point is at least as good on every axis and better on one; equal points stay together.

    points (P, A). Raises TastemakerError on another shape and on NaN.
    """
    points = check_points(points)
    as_good = (points[:, None] >= points[None]).all(2)  # (P, P): the first against the second
    better = (points[:, None] > points[None]).any(2)
    return ~(as_good & better).any(0)


def dominated_area(points: Any, corner: Any) -> float:
    """The area of all that lies between `corner` (2,) and some point of points (P, 2), >= 0. A point not above the
    corner on both axes adds nothing. Raises as `non_dominated` does."""
    return float(dominated_areas(check_points(points, 2)[None], corner)[0])


def dominated_areas(draws: NDArray, corner: Any) -> NDArray:
    """(S,) areas of draws (S, P, 2): from the right, each point adds what it has above the highest so far."""
    above = (draws - np.asarray(corner, np.float64)).clip(0)
    above = np.where((above > 0).all(2, keepdims=True), above, 0.0)
    order = np.argsort(-above[..., 0], axis=1, kind="stable")
    x, y = (np.take_along_axis(above[..., k], order, 1) for k in (0, 1))
    highest = np.maximum.accumulate(y, 1)
    steps = np.diff(highest, axis=1, prepend=np.zeros((len(draws), 1)))
    return (x * steps).sum(1)


def nadir(points: Any) -> NDArray:
    """(A,) the worst of every axis: a corner that leaves out no point, and to which the two ends add nothing."""
    return check_points(points).min(0)


def resample_points(rows: Sequence[Any], errors: Sequence[Any], resamples: int = RESAMPLES, seed: int = 0) -> NDArray:
    """(S, P, A) points as they might have been measured.

    rows: for each point its measurements (Q, A), one a seed. Several are drawn with replacement and averaged; one
    alone is moved by a normal error of the standard deviation errors[p] (A,), 0 where none is known.
    """
    rng, found = np.random.default_rng(seed), []
    for own, error in zip(rows, errors, strict=True):
        own = check_points(own)
        if len(own) > 1:
            found.append(own[rng.integers(len(own), size=(resamples, len(own)))].mean(1))
        else:
            found.append(own + rng.standard_normal((resamples, own.shape[1])) * np.asarray(error, np.float64))
    return np.stack(found, 1)


def area_interval(points: Any, draws: NDArray, corner: Any) -> Interval:
    """The dominated area of points (P, 2) with the percentile interval over draws (S, P, 2), as `resample_points`
    gives. Noise can only be picked up by a front, never given back, so that the interval leans upwards."""
    points = check_points(points, 2)
    return summarise(dominated_area(points, corner), dominated_areas(draws, corner), len(points))


def area_difference(a: Any, a_draws: NDArray, b: Any, b_draws: NDArray, corner: Any) -> Interval:
    """area(a) - area(b), of fronts that share no measurement."""
    moved = dominated_areas(a_draws, corner) - dominated_areas(b_draws, corner)
    return summarise(dominated_area(a, corner) - dominated_area(b, corner), moved, len(a) + len(b))


def check_points(points: Any, axes: int | None = None) -> NDArray:
    """(P, A) float64, P >= 1, finite."""
    points = np.asarray(points, np.float64)
    shape = "points (P, A)" if axes is None else f"points (P, {axes})"
    expect(points.ndim == 2 and len(points) > 0 and axes in (None, points.shape[1]), shape, f"shape {points.shape}")
    if not np.isfinite(points).all():
        raise TastemakerError(f"{shape} hold NaN or infinity: leave out the runs whose figures are missing")
    return points
