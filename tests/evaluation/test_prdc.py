"""Precision, recall, density and coverage: equal to counting by definition, ties and duplicates included."""

import contextlib
import io

import numpy as np
import pytest
import torch

from tastemaker.errors import TastemakerError
from tastemaker.evaluation import prdc as module
from tastemaker.evaluation.prdc import prdc, precision_recall, radius_squares

RNG = np.random.default_rng(0)


def by_definition(real, generated, k, inside):
    """Every distance in float64, from differences."""
    far = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))  # noqa: E731
    real_radius, generated_radius = (np.sort(far(x, x), 1)[:, k] for x in (real, generated))
    cross = far(real, generated)
    hits, recalled = inside(cross, real_radius[:, None]), inside(cross, generated_radius[None])
    return {
        "precision": hits.any(0).mean(),
        "recall": recalled.any(1).mean(),
        "density": hits.sum() / (k * len(generated)),
        "coverage": hits.any(1).mean(),
    }


CLOUDS = {
    "gaussian": (RNG.normal(size=(300, 16)), RNG.normal(size=(200, 16)) * 0.9 + 0.1),
    "lattice": (RNG.integers(0, 3, (120, 4)), RNG.integers(0, 3, (90, 4))),
    "duplicates": (np.repeat(RNG.normal(size=(30, 8)), 4, 0), np.repeat(RNG.normal(size=(25, 8)), 3, 0)),
    "far from the origin": (RNG.normal(size=(150, 8)) + 1e4, RNG.normal(size=(100, 8)) + 1e4),
    "one outlier": (np.r_[RNG.normal(size=(99, 8)), np.full((1, 8), 1e5)], RNG.normal(size=(80, 8))),
    "huge units": (RNG.normal(size=(90, 8)) * 1e25, RNG.normal(size=(90, 8)) * 1e25),
    "collapsed": (RNG.normal(size=(150, 8)), RNG.normal(size=(100, 8)) * 0.01),
    "all one point": (np.ones((20, 3)), np.ones((15, 3))),
}


@pytest.mark.parametrize("tile, crowd", [(2048, 512), (37, 512), (37, 0)])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", CLOUDS)
def test_counts_are_those_of_the_definition(monkeypatch, name, k, tile, crowd):
    """In one tile, in many, and by the way taken for crowded sets."""
    for constant, value in {"TILE": tile, "FEW": tile, "CROWD": crowd}.items():
        monkeypatch.setattr(module, constant, value)
    real, generated = (x.astype(np.float64) for x in CLOUDS[name])
    assert prdc(real, generated, k) == pytest.approx(by_definition(real, generated, k, np.less), abs=1e-12)
    loose, found = by_definition(real, generated, k, np.less_equal), precision_recall(real, generated, k)
    assert (found["precision"], found["recall"]) == pytest.approx((loose["precision"], loose["recall"]), abs=1e-12)
    assert found["f_score"] == pytest.approx(
        2 * loose["precision"] * loose["recall"] / max(loose["precision"] + loose["recall"], 1e-300)
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_values_of_the_prdc_package(kind):
    theirs = pytest.importorskip("prdc", reason="the peer package is a development dependency")
    real, generated = RNG.normal(size=(1500, 96)).astype(kind), (RNG.normal(size=(1300, 96)) * 0.97).astype(kind)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = theirs.compute_prdc(real, generated, 5)
    assert prdc(real, generated, 5) == pytest.approx({k: float(v) for k, v in expected.items()}, abs=1e-12)


def test_float32_features_are_compared_at_their_own_precision():
    """Two distances that differ in float64 and not in float32 are equal for float32 features."""
    real = np.array([[0.0], [1.0], [2.0]])
    generated = np.array([[1 - 1e-9], [5.0], [6.0]])
    assert (
        prdc(real, generated, 1)["density"]
        > prdc(real.astype(np.float32), generated.astype(np.float32), 1)["density"]
    )


def test_float32_roots_are_the_correctly_rounded_ones():
    squares = RNG.uniform(100, 5000, 20000)
    expected = np.sqrt(squares.astype(np.float32)).astype(np.float64) ** 2
    assert (module.rounded(torch.from_numpy(squares), torch.float32).numpy() == expected).all()


def test_reduced_float32_products_do_not_change_the_counts():
    real, generated = CLOUDS["gaussian"]
    expected = prdc(real, generated, 5)
    torch.set_float32_matmul_precision("medium")
    try:
        assert prdc(real, generated, 5) == expected
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_error_bound_holds():
    """Fast distances stay within `margin` of exact ones, by more than nothing and less than all of it."""
    a, b = torch.randn(100, 700, dtype=torch.float64), torch.randn(120, 700, dtype=torch.float64) * 3 + 1
    search = module.Search(a, b)
    exact = ((a[:, None] - b[None]) / search.scale).square().sum(-1)
    share = ((search.tile(0, 0).double() - exact).abs() / search.margin.double()[:, None]).max()
    assert 0 < share < 1


def test_radius_is_the_distance_to_the_kth_other():
    points = torch.tensor([[0.0], [1.0], [3.0], [3.0], [7.0]])
    assert radius_squares(points, 1).tolist() == [1, 1, 0, 0, 16]
    assert radius_squares(points, 3).tolist() == [9, 4, 9, 9, 36]


@pytest.mark.parametrize(
    "real, generated, k, words",
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), 2, "widths 2 and 3"),
        (np.zeros((5, 2)), np.zeros((2, 2)), 2, "below the 2 generated points"),
        (np.zeros((5, 2)), np.zeros((5, 2)), 0, "at least 1"),
        (np.zeros(5), np.zeros((5, 2)), 1, r"real features \(N, D\)"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), 1, "NaN"),
    ],
)
def test_bad_input_is_refused(real, generated, k, words):
    with pytest.raises(TastemakerError, match=words):
        prdc(real, generated, k)
