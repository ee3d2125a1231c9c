"""The same features through others' formulas, computed independently: torch-fidelity's Fréchet distance and kernel
distance as it publishes them, and the package `prdc`."""

import contextlib
import io

import numpy as np
import pytest
import scipy.linalg
from sklearn.metrics.pairwise import polynomial_kernel

from tastemaker.evaluation.frechet import Moments, frechet_distance
from tastemaker.evaluation.kernel_distance import over_subsets, subset_mean
from tastemaker.evaluation.prdc import prdc

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(900, 48)) @ (RNG.normal(size=(48, 48)) / 7) + 0.3
GENERATED = RNG.normal(size=(700, 48)) @ (RNG.normal(size=(48, 48)) / 7)


def their_draws(subsets, size, seed):
    rng = np.random.RandomState(seed)  # noqa: NPY002  (the draws of the other package)
    return [tuple(rng.choice(len(x), size, replace=False) for x in (GENERATED, REAL)) for _ in range(subsets)]


def their_kernel_distance(x, y):
    """MMD with own pairs off the diagonal and all cross pairs, kernel (x y / D + 1)^3."""
    own = [polynomial_kernel(v, degree=3, gamma=1 / v.shape[1], coef0=1) for v in (x, y)]
    off = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in own]
    return sum(off) - 2 * polynomial_kernel(x, y, degree=3, gamma=1 / x.shape[1], coef0=1).mean()


def test_frechet_distance_by_the_root_of_a_matrix_and_by_eigenvalues():
    """scipy's sqrtm, as the first releases of FID have it, and the eigenvalues of the product, as torch-fidelity."""
    a, b = np.cov(GENERATED, rowvar=False), np.cov(REAL, rowvar=False)
    apart = ((GENERATED.mean(0) - REAL.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b)
    ours = frechet_distance(Moments.of(GENERATED), Moments.of(REAL))
    assert ours == pytest.approx(apart - 2 * np.trace(scipy.linalg.sqrtm(a @ b)).real, rel=1e-9)
    eigenvalues = np.linalg.eigvals(a @ b).astype(complex)
    assert ours == pytest.approx(apart - 2 * np.sqrt(eigenvalues).real.sum(), rel=1e-9)


def test_kernel_distance_over_their_subsets():
    draws = their_draws(20, 200, seed=2020)
    expected = [their_kernel_distance(GENERATED[i], REAL[j]) for i, j in draws]
    np.testing.assert_allclose(over_subsets(GENERATED, REAL, draws), expected, rtol=1e-9)


def test_the_reported_kernel_distance_is_the_mean_with_its_standard_error():
    found = subset_mean(GENERATED, REAL, size=200, subsets=50)
    values = [their_kernel_distance(GENERATED[i], REAL[j]) for i, j in their_draws(50, 200, seed=1)]
    reach = (found.high - found.low) / 2
    assert found.value == pytest.approx(np.mean(values), abs=4 * reach)  # other subsets: both err by reach / 1.96
    assert reach == pytest.approx(1.96 * np.std(values, ddof=1) / 50**0.5, rel=0.5)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_to_coverage_by_the_prdc_package(k):
    theirs = pytest.importorskip("prdc", reason="the peer package is a development dependency")
    with contextlib.redirect_stdout(io.StringIO()):
        expected = theirs.compute_prdc(REAL, GENERATED, k)
    assert prdc(REAL, GENERATED, k) == pytest.approx({name: float(v) for name, v in expected.items()}, abs=1e-12)
