"""Kernel distance: each estimator against its definition by explicit sums, and what it expects."""

import itertools
import tracemalloc

import numpy as np
import pytest

from tastemaker.errors import TastemakerError
from tastemaker.evaluation import kernel_distance as kd

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 3)) + 0.5


def k(x, y):
    return (np.dot(x, y) / 3 + 1) ** 3


def own(x):
    return np.mean([k(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)])


def test_estimators_are_their_definitions(monkeypatch):
    monkeypatch.setattr(kd, "ROWS", 4)  # several blocks
    cross = [[k(x, y) for y in B] for x in A]
    apart = np.mean([cross[i][j] for i, j in itertools.permutations(range(9), 2)])
    assert kd.unbiased(A, B) == pytest.approx(own(A) + own(B) - 2 * np.mean(cross), rel=1e-12)
    assert kd.u_statistic(A, B) == pytest.approx(own(A) + own(B) - 2 * apart, rel=1e-12)
    everything = [np.mean([[k(x, y) for y in s] for x in s]) for s in (A, B)]
    assert kd.biased(A, B) == pytest.approx(sum(everything) - 2 * np.mean(cross), rel=1e-12)


def test_memory_does_not_grow_by_a_copy_of_the_features(monkeypatch):
    monkeypatch.setattr(kd, "ROWS", 64)
    a, b = (RNG.normal(size=(3000, 64)).astype(np.float32) for _ in range(2))
    expected = kd.unbiased(a.astype(np.float64), b.astype(np.float64))
    tracemalloc.start()
    assert kd.unbiased(a, b) == pytest.approx(expected, rel=1e-9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes / 2


def test_unbiased_averages_to_zero_for_equal_distributions_and_biased_does_not():
    draws = [(RNG.normal(size=(20, 4)), RNG.normal(size=(30, 4))) for _ in range(600)]
    unbiased, biased = (np.array([f(*d) for d in draws]) for f in (kd.unbiased, kd.biased))
    error = unbiased.std() / np.sqrt(len(draws))
    assert abs(unbiased.mean()) < 4 * error and biased.mean() > 10 * error and biased.min() >= 0


def test_subsets_are_drawn_without_replacement_and_repeat_by_seed():
    draws = list(kd.random_subsets(9, 9, size=5, subsets=20, seed=3))
    assert all(len(set(i)) == len(set(j)) == 5 for i, j in draws)
    values = kd.over_subsets(A, B, draws)
    assert values.shape == (20,) and values.std() > 0
    assert (values == kd.over_subsets(A, B, kd.random_subsets(9, 9, size=5, subsets=20, seed=3))).all()
    assert values[0] == pytest.approx(kd.unbiased(A[draws[0][0]], B[draws[0][1]]))
    whole = kd.over_subsets(A, B, kd.random_subsets(9, 9, size=9, subsets=1), kd.biased)
    assert whole[0] == pytest.approx(kd.biased(A, B))


def test_bad_input_is_refused():
    with pytest.raises(TastemakerError, match="as many rows"):
        kd.u_statistic(A, B[:5])
    with pytest.raises(TastemakerError, match="at least 2"):
        kd.unbiased(A[:1], B)
    with pytest.raises(TastemakerError, match=r"\(N, 3\)"):
        kd.unbiased(A, B[:, :2])
    with pytest.raises(TastemakerError, match="choose a smaller size"):
        list(kd.random_subsets(9, 9, size=10))
