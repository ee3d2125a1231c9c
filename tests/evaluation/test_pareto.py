"""Fronts and dominated areas against brute force: counting pairs, and counting cells of a fine grid."""

import numpy as np
import pytest

from tastemaker.errors import TastemakerError
from tastemaker.evaluation.pareto import (
    area_difference,
    area_interval,
    dominated_area,
    dominated_areas,
    nadir,
    non_dominated,
    resample_points,
)

RNG = np.random.default_rng(0)


def beaten(points, j):
    return any((p >= points[j]).all() and (p > points[j]).any() for p in points)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("draw", [lambda a: RNG.normal(size=(40, a)), lambda a: RNG.integers(0, 4, (40, a))])
def test_nothing_beats_a_non_dominated_point(draw, axes):
    points = draw(axes)
    found = non_dominated(points)
    assert found.tolist() == [not beaten(points, j) for j in range(len(points))] and found.any()


def test_equal_points_stay_together():
    assert non_dominated([[1, 2], [1, 2], [0, 2]]).tolist() == [True, True, False]


def cells(points, corner, top):
    """Unit cells between corner and a point, by looking at every one."""
    xs, ys = (np.arange(corner[k], top) for k in (0, 1))
    return sum(any(x < p[0] and y < p[1] for p in points) for x in xs for y in ys)


@pytest.mark.parametrize("seed", range(20))
def test_the_area_is_the_number_of_cells_below_some_point(seed):
    """Integer points, so that the union of rectangles is a union of unit cells; some lie below the corner."""
    points = np.random.default_rng(seed).integers(0, 12, (seed + 1, 2))
    assert dominated_area(points, (3, 2)) == cells(points, (3, 2), 12)


def test_the_area_of_known_fronts():
    assert dominated_area([[2, 1], [1, 3]], (0, 0)) == 4
    assert dominated_area([[2, 1], [1, 3], [1, 1], [2, 1]], (0, 0)) == 4  # beaten and equal points add nothing
    assert dominated_area([[5, -1], [-1, 5]], (0, 0)) == 0  # each is below the corner on one axis
    assert dominated_area([[2, 1], [1, 3]], (-1, -1)) == 3 * 2 + 2 * 2


def test_the_area_grows_with_a_point_and_scales_with_the_axes():
    points = RNG.normal(size=(30, 2))
    corner = nadir(points)
    areas = [dominated_area(points[:k], corner) for k in range(1, 31)]
    assert (np.diff(areas) >= 0).all() and areas[-1] > areas[0]
    assert dominated_area(points * [2, 5], corner * [2, 5]) == pytest.approx(10 * areas[-1])
    assert dominated_areas(np.stack([points, points[::-1]]), corner) == pytest.approx([areas[-1]] * 2)


def test_resamples_draw_seeds_and_errors():
    several, alone = np.array([[0.0, 0.0], [2.0, 4.0]]), np.array([[1.0, 1.0]])
    draws = resample_points([several, alone, alone], [np.zeros(2), np.array([0.5, 0.0]), np.zeros(2)], 4000)
    assert draws.shape == (4000, 3, 2)
    assert sorted(set(draws[:, 0, 0])) == [0, 1, 2] and (draws[:, 0, 1] == 2 * draws[:, 0, 0]).all()
    assert draws[:, 1, 0].std() == pytest.approx(0.5, rel=0.05) and (draws[:, 1, 1] == 1).all()
    assert (draws[:, 2] == 1).all()
    assert (draws == resample_points([several, alone, alone], [[0, 0], [0.5, 0], [0, 0]], 4000)).all()


def test_the_interval_holds_the_area_and_a_difference_finds_the_larger_front():
    small, large = np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[2.0, 4.0], [4.0, 2.0]])
    error = [np.full(2, 0.05)] * 2
    draws = [resample_points([[p] for p in front], error, 2000, seed) for seed, front in enumerate((small, large))]
    area = area_interval(small, draws[0], (0, 0))
    assert area.value == 3 and area.low < 3 < area.high and area.count == 2
    # to first order: the area is x1 (y1 - y2) + x2 y2 with x1 < x2, so all four slopes are 1
    assert (area.high - area.low) / 2 == pytest.approx(1.96 * 0.05 * 2, rel=0.1)
    assert area_difference(large, draws[1], small, draws[0], (0, 0)).verdict() == "better"
    assert area_difference(small, draws[0], small, draws[0], (0, 0)).value == 0


def test_what_is_no_front_is_refused():
    with pytest.raises(TastemakerError, match="leave out the runs"):
        non_dominated([[1, np.nan]])
    with pytest.raises(TastemakerError, match=r"points \(P, 2\), got shape \(1, 3\)"):
        dominated_area([[1, 2, 3]], (0, 0))
    with pytest.raises(TastemakerError, match=r"got shape \(0,\)"):
        nadir([])
