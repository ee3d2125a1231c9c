"""Agreement figures beside the packages krippendorff, scikit-learn and scipy, and worked examples.

alpha.json holds what krippendorff 0.9.0 gives for the tables below: its figures; the package itself is GPL-3.0.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tastemaker.annotate import agreement as ag
from tastemaker.errors import TastemakerError


def ratings(rng, people=5, items=30, levels=5, missing=0.3, noise=1):
    """(A, N): a true value, and each person near it; some answers missing."""
    truth = rng.integers(1, levels + 1, items)
    values = np.clip(truth + rng.integers(-noise, noise + 1, (people, items)), 1, levels).astype(float)
    values[rng.random(values.shape) < missing] = np.nan
    return values


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval", "ratio"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.7])
def test_alpha_is_the_packages(level, missing):
    rng = np.random.default_rng(0)
    expected = json.loads(Path(__file__).with_name("alpha.json").read_text())[f"{level} {missing}"]
    for theirs in expected:
        values = ratings(rng, missing=missing)
        assert ag.krippendorff(values, level) == pytest.approx(theirs, abs=1e-12)


def test_alpha_of_krippendorffs_own_example():
    """Four observers, twelve units, missing answers: Krippendorff (2011), Computing alpha-reliability, section C."""
    n = np.nan
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    rounded = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}
    for level, value in rounded.items():
        assert ag.krippendorff(table, level) == pytest.approx(value, abs=6e-4)


def test_alpha_is_not_defined_without_pairs_or_without_variety():
    assert math.isnan(ag.krippendorff([[1, 1], [1, 1]]))
    assert math.isnan(ag.krippendorff([[1, np.nan], [np.nan, 2]]))
    assert math.isnan(ag.krippendorff(np.empty((0, 3))))
    with pytest.raises(TastemakerError, match="level"):
        ag.krippendorff([[1, 2], [1, 2]], "cardinal")
    with pytest.raises(TastemakerError, match="annotators, items"):
        ag.krippendorff([1, 2, 3])


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_cohen_is_scikit_learns(weights):
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, y = ratings(rng, people=2, items=40, missing=0)
        assert ag.cohen(x, y, weights) == pytest.approx(cohen_kappa_score(x, y, weights=weights), abs=1e-12)


def test_cohen_uses_what_both_answered():
    n = np.nan
    assert ag.cohen([1, 2, n, 1], [1, 2, 1, n]) == 1
    assert math.isnan(ag.cohen([1, 1], [1, 1]))
    with pytest.raises(TastemakerError, match="weights"):
        ag.cohen([1, 2], [1, 2], "cubic")


def test_fleiss_own_kind_of_example():
    """Fourteen raters, ten items, five values: kappa 0.210 (the worked example that many textbooks print)."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert ag.fleiss(counts) == pytest.approx(0.20993, abs=1e-5)
    assert ag.randolph([[3, 0], [0, 3]]) == 1 == ag.fleiss([[3, 0], [0, 3]])


def test_fleiss_needs_as_many_answers_for_every_item():
    for counts in ([[2, 1], [1, 1]], [[1, 0], [0, 1]], []):
        with pytest.raises(TastemakerError, match="as many answers"):
            ag.fleiss(counts)


def test_percent_agreement_is_that_of_all_pairs_of_people():
    n = np.nan
    assert ag.percent_agreement([[1, 2], [1, 3], [2, 3]]) == pytest.approx(2 / 6)
    assert ag.percent_agreement([[1, 2], [1, n]]) == 1
    assert math.isnan(ag.percent_agreement([[1, 2]]))


def test_chance_corrected_figures_are_about_zero_by_chance():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (4, 4000)).astype(float)
    counts, _ = ag.value_counts(values)
    for figure in (ag.krippendorff(values), ag.fleiss(counts), ag.randolph(counts), ag.cohen(*values[:2])):
        assert abs(figure) < 0.03
    assert abs(ag.percent_agreement(values) - 1 / 3) < 0.02


def test_kendalls_w_of_one_order_is_one_and_of_chance_one_over_the_judges():
    assert ag.kendall_w([[1, 2, 3], [10, 20, 30]]) == pytest.approx(1)
    assert ag.kendall_w([[1, 2, 2, 4], [1, 2, 2, 4]]) == pytest.approx(1)  # ties corrected
    assert ag.kendall_w([[1, 2, 3], [3, 2, 1]]) == pytest.approx(0)
    rng = np.random.default_rng(0)
    found = [ag.kendall_w(np.stack([rng.permutation(8) for _ in range(5)])) for _ in range(400)]
    assert np.mean(found) == pytest.approx(1 / 5, abs=0.02)
    with pytest.raises(TastemakerError, match="complete orders"):
        ag.kendall_w([[1, 2], [1, np.nan]])


def test_w_follows_from_the_mean_rank_correlation():
    """W = (1 + (m - 1) mean Spearman) / m, where there are no ties."""
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(9) for _ in range(4)])
    mean = np.corrcoef(ranks)[np.triu_indices(4, 1)].mean()
    assert ag.kendall_w(ranks) == pytest.approx((1 + 3 * mean) / 4)


def test_a_table_of_answers_keeps_the_later_answer():
    table = ag.table_of([("u", "x", 1), ("w", "x", 2), ("u", "y", 3), ("u", "x", 4)])
    assert table.annotators == ("u", "w") and table.items == ("x", "y")
    assert np.array_equal(table.values, [[4, 3], [2, np.nan]], equal_nan=True)
