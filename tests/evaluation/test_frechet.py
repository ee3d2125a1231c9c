"""Fréchet distance against closed forms, singular covariances, and moments that add up."""

import numpy as np
import pytest
import scipy.linalg
import torch

from tastemaker.errors import TastemakerError
from tastemaker.evaluation.frechet import Moments, frechet_distance, frechet_distance_of_features, merge

RNG = np.random.default_rng(0)


def of_gaussian(mean, covariance, count=1000) -> Moments:
    return Moments(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def reference(a, b) -> float:
    """By definition: the trace of the root is the nuclear norm of the product of the centred data."""
    x, y = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (a, b))
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum()
    return apart - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum()


def test_two_gaussians_that_commute():
    """Diagonal covariances: |m|^2 + sum (s_a - s_b)^2 over standard deviations s."""
    a, b = of_gaussian([0, 1, 2], np.diag([1, 4, 9])), of_gaussian([1, 1, 0], np.diag([4, 4, 1]))
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 4, rel=1e-12)


def test_two_gaussians_that_do_not_commute():
    """2 x 2: tr root(M) = sqrt(tr M + 2 sqrt(det M))."""
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.8], [-0.8, 3.0]])
    product = a @ b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    found = frechet_distance(of_gaussian([0, 0], a), of_gaussian([3, 4], b))
    assert found == pytest.approx(25 + np.trace(a) + np.trace(b) - 2 * root, rel=1e-12)


@pytest.mark.parametrize(
    "n, m, d", [(500, 300, 40), (30, 50, 64), (300, 20, 64), (64, 64, 64), (65, 66, 64), (400, 500, 300)]
)
def test_any_number_of_rows_meets_the_reference(n, m, d):
    a, b = RNG.normal(size=(n, d)) @ RNG.normal(size=(d, d)), RNG.normal(size=(m, d)) * 2 + 0.3
    expected = reference(a, b)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance_of_features(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance_of_features(b, a) == pytest.approx(expected, rel=1e-9)


def test_well_conditioned_agrees_with_the_square_root_of_a_matrix():
    a, b = RNG.normal(size=(900, 60)), RNG.normal(size=(800, 60)) * 1.5 + 0.1
    x, y = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(scipy.linalg.sqrtm(x @ y).real)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(x) + np.trace(y) - 2 * root
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-10)


def test_dead_and_copied_columns_and_widely_spread_scales():
    a, b = RNG.normal(size=(400, 48)), RNG.normal(size=(300, 48)) + 0.2
    for x in (a, b):
        x[:, 10:20] = 0
        x[:, 20:30] = x[:, :10] * 2
        x *= np.logspace(0, -7, 48)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(reference(a, b), rel=1e-7)


def test_a_tiny_distance_of_nearly_equal_sets_is_not_lost():
    a = RNG.normal(size=(200, 30)) + 50
    b = a * (1 + 1e-5)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(reference(a, b), rel=1e-6)
    assert frechet_distance(Moments.of(a), Moments.of(a)) == pytest.approx(0, abs=1e-11)


def test_nothing_is_added_to_the_diagonal():
    """Both covariances are zero: the distance is that of the means, to the last digit."""
    a, b = np.zeros((5, 4)), np.ones((6, 4))
    assert frechet_distance(Moments.of(a), Moments.of(b)) == 4.0 == frechet_distance_of_features(a, b)


def test_streaming_merging_and_the_whole_are_one():
    features = (RNG.normal(size=(5000, 12)) * 0.01 + 1000).astype(np.float32)
    whole = Moments.of(features)
    parts = [Moments.empty(12)]
    for part in np.array_split(features, [1, 700, 701, 4100]):
        parts.append(Moments.empty(12))
        for batch in np.array_split(part, 3):
            parts[-1].update(torch.from_numpy(batch))
    merged = merge(parts)
    assert merged.count == whole.count == 5000
    np.testing.assert_allclose(merged.mean, features.astype(np.float64).mean(0), rtol=1e-14)
    expected = np.cov(features.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(merged.covariance, expected, rtol=1e-9, atol=1e-9 * expected.max())
    np.testing.assert_allclose(whole.covariance, expected, rtol=1e-9, atol=1e-9 * expected.max())


def test_size_does_not_depend_on_the_number_of_rows():
    moments = Moments.empty(8)
    sizes = set()
    for _ in range(3):
        moments.update(RNG.normal(size=(1000, 8)))
        sizes.add((moments.mean.nbytes, moments.scatter.nbytes))
    assert len(sizes) == 1 and moments.count == 3000


def test_saved_moments_come_back_and_other_files_do_not(tmp_path):
    moments = Moments.of(RNG.normal(size=(50, 6)))
    moments.save(tmp_path / "real.safetensors")
    again = Moments.load(tmp_path / "real.safetensors")
    assert again.count == 50 and (again.scatter == moments.scatter).all() and (again.mean == moments.mean).all()
    (tmp_path / "other").write_bytes(b"no moments")
    for name in ("other", "absent"):
        with pytest.raises(TastemakerError, match="holds no moments"):
            Moments.load(tmp_path / name)


def test_what_cannot_be_measured_is_said():
    good = Moments.of(RNG.normal(size=(10, 3)))
    with pytest.raises(TastemakerError, match="widths 3 and 4"):
        frechet_distance(good, Moments.of(RNG.normal(size=(10, 4))))
    with pytest.raises(TastemakerError, match="at least 2 feature rows"):
        frechet_distance(good, Moments.of(np.zeros((1, 3))))
    with pytest.raises(TastemakerError, match="at least 2 feature rows"):
        frechet_distance_of_features(np.zeros((1, 3)), np.zeros((9, 3)))
    with pytest.raises(TastemakerError, match="NaN"):
        Moments.of(np.array([[1.0, np.nan]]))
    with pytest.raises(TastemakerError, match=r"\(N, D\)"):
        Moments.of(np.zeros(5))
    with pytest.raises(TastemakerError, match="one width"):
        merge([good, Moments.empty(4)])
