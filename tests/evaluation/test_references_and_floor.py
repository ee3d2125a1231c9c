"""Moments kept in files and what they are refused for; the floor of real against real against simulation."""

from types import SimpleNamespace

import numpy as np
import pytest

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.evaluation.floor import floor_of_gaussian, floor_of_halves, gaussian_sample
from tastemaker.evaluation.frechet import Moments, factor, frechet_distance
from tastemaker.evaluation.references import Reference, is_moments_file, moments_of, read_reference, save_references
from tastemaker.records import Provenance

RNG = np.random.default_rng(0)
MADE_BY = Provenance("network", "a1", "resized to 8 x 8")
ENCODER = SimpleNamespace(dim=5, provenance=MADE_BY)
REAL = (RNG.normal(size=(60, 5)) @ RNG.normal(size=(5, 5)) + 3).astype(np.float32)


def encoder(**changes):
    return SimpleNamespace(dim=5, provenance=Provenance(**{**MADE_BY.__dict__, **changes}))


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "real.safetensors"
    moments = Moments.of(REAL)
    kept = {"with": Reference(moments, 60, REAL), "without": Reference(moments, 60)}
    save_references(path, kept, dict.fromkeys(kept, MADE_BY))
    full, bare = (read_reference(path, space, ENCODER) for space in kept)
    assert (full.features == REAL).all() and bare.features is None and full.count == bare.count == 60
    other = Moments.of(RNG.normal(size=(40, 5)))
    expected = frechet_distance(other, moments)
    assert frechet_distance(other, bare.moments) == pytest.approx(expected, rel=1e-12)
    assert bare.moments.mean.dtype == bare.moments.scatter.dtype == np.float64


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"model": "another"}, "of other model: made by 'network', this encoder has 'another'"),
        ({"weight_hash": "b2"}, "of other weights: made by 'a1', this encoder has 'b2'"),
        ({"preprocessing": "cropped"}, "of other preprocessing: made by 'resized to 8 x 8', this encoder"),
    ],
)
def test_moments_of_another_encoder_are_refused_by_name(tmp_path, changed, said):
    path = tmp_path / "real.safetensors"
    save_references(path, {"space": Reference(Moments.of(REAL), 60)}, {"space": MADE_BY})
    with pytest.raises(TastemakerError, match=said):
        read_reference(path, "space", encoder(**changed))
    with pytest.raises(UnknownName, match="unknown feature space 'spice'; nearest known: space"):
        read_reference(path, "spice", ENCODER)


def test_files_without_moments_are_refused(tmp_path):
    with pytest.raises(TastemakerError, match="ends in .safetensors"):
        save_references(tmp_path / "real.pt", {}, {})
    Moments.of(REAL).save(tmp_path / "parts.safetensors")
    with pytest.raises(TastemakerError, match="holds no moments"):
        read_reference(tmp_path / "parts.safetensors", "space", ENCODER)
    for name in ("gone.safetensors", "gone.npz"):
        with pytest.raises(TastemakerError, match="holds no readable moments"):
            read_reference(tmp_path / name, "space", ENCODER)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(TastemakerError, match="holds no readable moments"):
        read_reference(tmp_path / "cut.npz", "space", ENCODER)


@pytest.mark.parametrize("more", [{}, {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3))}])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_moments_of_others_are_read(tmp_path, more, kind):
    """With pictures and spatial moments beside them as ADM has it, or alone as torch-fidelity and JiT."""
    mu, sigma = REAL.mean(0, dtype=np.float64), np.cov(REAL.astype(np.float64), rowvar=False)
    np.savez(tmp_path / "theirs.npz", mu=mu.astype(kind), sigma=sigma.astype(kind), **more)
    theirs = read_reference(tmp_path / "theirs.npz", "space", ENCODER)
    assert theirs.count is None and theirs.features is None and is_moments_file(tmp_path / "theirs.npz")
    other = Moments.of(RNG.normal(size=(40, 5)))
    expected = frechet_distance(other, Moments.of(REAL))
    assert frechet_distance(other, theirs.moments) == pytest.approx(
        expected, rel=1e-5 if kind == np.float32 else 1e-12
    )


@pytest.mark.parametrize(
    "stored, said",
    [
        ({"arr_0": np.zeros(3)}, "expected `mu` and `sigma`"),
        ({"mu": np.zeros(4), "sigma": np.eye(4)}, r"`mu` \(5,\) and `sigma` \(5, 5\).* has \(4,\)"),
        ({"mu": np.zeros(5), "sigma": np.triu(np.ones((5, 5)))}, "not symmetric"),
        ({"mu": np.zeros(5), "sigma": np.full((5, 5), np.nan)}, "NaN"),
        ({"mu": np.array([{}] * 5), "sigma": np.eye(5)}, "holds no readable moments"),  # would have to be unpickled
    ],
)
def test_moments_of_others_that_cannot_be_right_are_refused(tmp_path, stored, said):
    np.savez(tmp_path / "theirs.npz", **stored)
    with pytest.raises(TastemakerError, match=said):
        read_reference(tmp_path / "theirs.npz", "space", ENCODER)


# the floor


def drawn(count, dim=12, seed=0):
    mix = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return np.random.default_rng(seed).normal(size=(count, dim)) @ mix


def simulated(count, other, draws=60):
    """The mean distance of two sets of real pictures, drawn anew each time."""
    pairs = [(drawn(count, seed=2 * k + 10), drawn(other, seed=2 * k + 11)) for k in range(draws)]
    return np.mean([frechet_distance(Moments.of(a), Moments.of(b)) for a, b in pairs])


def test_two_halves_give_the_floor_and_the_excess_of_a_shift():
    real, shifted = drawn(800, seed=1), drawn(400, seed=2) + 1.0
    found = floor_of_halves(real, shifted, draws=8)
    assert found.count == 400 and "two disjoint halves of the reference, mean of 8 splits" in found.how
    assert found.floor == pytest.approx(simulated(400, 400), rel=0.2)
    assert found.excess == pytest.approx(12.0, rel=0.1) and found.ratio == found.distance / found.floor
    fresh = floor_of_halves(real, drawn(400, seed=3), draws=8)
    assert fresh.ratio == pytest.approx(1, abs=0.2) and abs(fresh.excess) < 0.02 * found.excess


def test_halves_are_disjoint_and_no_larger_than_half_the_reference():
    """Identical rows would give a floor of 0 if a picture could be in both sets."""
    real = np.repeat(np.arange(10.0), 1)[:, None]
    found = floor_of_halves(real, real[:7], draws=16)
    assert found.count == 5 and found.floor > 0
    assert floor_of_halves(real, real[:7], count=3).count == 3
    assert floor_of_halves(real, real, seed=1) == floor_of_halves(real, real, seed=1)
    with pytest.raises(TastemakerError, match="4 real and 2 generated"):
        floor_of_halves(real[:3], real)


@pytest.mark.parametrize("count, other", [(300, 500), (8, 500), (300, None)])
def test_the_floor_of_a_gaussian_is_that_of_rows_drawn_from_it(count, other):
    """Also for fewer rows than dimensions."""
    large = Moments.of(drawn(200_000, seed=5))
    if other is None:
        expected = np.mean([frechet_distance(Moments.of(drawn(count, seed=k)), large) for k in range(60)])
    else:
        expected = simulated(count, other)
    found = floor_of_gaussian(large, other, 7.0, count, draws=60)
    assert found.floor == pytest.approx(expected, rel=0.06) and found.excess == 7.0 - found.floor
    assert ("its own moments" if other is None else "500 such rows") in found.how


def test_sample_covariances_without_rows_have_the_mean_and_spread_of_a_wishart():
    """E[S] = C, and of its entries var S_ij = (C_ij^2 + C_ii C_jj) / (n - 1)."""
    cov = np.array([[2.0, 0.6], [0.6, 1.0]])
    root = factor(moments_of(np.zeros(2), cov, None))
    for count in (2, 9):
        rng = np.random.default_rng(count)
        found = [gaussian_sample(root, count, rng) for _ in range(20_000)]
        spreads = np.stack([f @ f.T for _, f in found])
        np.testing.assert_allclose(spreads.mean(0), cov, atol=0.08)
        expected = (cov**2 + np.outer(cov.diagonal(), cov.diagonal())) / (count - 1)
        np.testing.assert_allclose(spreads.var(0), expected, rtol=0.12)
        means = np.stack([m for m, _ in found])
        np.testing.assert_allclose(np.cov(means, rowvar=False), cov / count, atol=0.05)
