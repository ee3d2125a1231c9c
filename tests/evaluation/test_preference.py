"""Pair accuracy, recall@k, filter@k and correlations: definitions by enumeration, ties, intervals that cover."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from tastemaker import correlation
from tastemaker.errors import TastemakerError
from tastemaker.evaluation import preference as pf


def test_a_hit_is_the_same_side_a_tie_of_people_says_nothing_and_a_tie_of_the_model_has_its_worth():
    margins, preferences = [2, -2, 2, 0, 1, 0, np.nan], [1, 1, 0, 1, 0.5, 0.5, 1]
    expected = [1, 0, 0, 0.5, np.nan, np.nan, np.nan]
    assert np.array_equal(pf.hits(margins, preferences), expected, equal_nan=True)
    assert pf.hits([0.0], [1.0], model_tie=0)[0] == 0
    assert pf.hits([1.0, -1.0], [0.8, 0.3]).tolist() == [1, 1]  # shares of voters count by their side


@pytest.mark.parametrize("margins, preferences", [([1, 2], [1]), ([[1]], [[1]]), ([1], [2])])
def test_wrong_pairs_are_refused(margins, preferences):
    with pytest.raises(TastemakerError, match="expected"):
        pf.hits(margins, preferences)


def test_pooled_and_per_prompt_differ_as_prompts_have_more_pairs():
    preferences = np.ones(10)
    margins = np.array([1, 1, 1, 1, 1, 1, 1, 1, -1, -1])
    prompts = ["long"] * 8 + ["short"] * 2
    found = pf.pair_accuracy(margins, preferences, prompts)
    assert found.pooled.value == 0.8 and found.pooled.count == 10
    assert found.per_prompt.value == 0.5 and found.per_prompt.count == 2
    assert (found.per_prompt.low, found.per_prompt.high) == (0, 1)


def test_ties_are_counted_and_left_out():
    found = pf.pair_accuracy([0, 1, 1, -1], [1, 0.5, 1, 1], [0, 0, 1, 1], resamples=10)
    assert (found.human_ties, found.model_ties) == (1, 1)
    assert found.pooled.value == pytest.approx(1.5 / 3)
    with pytest.raises(TastemakerError, match="all tied"):
        pf.pair_accuracy([1.0], [0.5], [0])


def test_a_missing_margin_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 3"):
        found = pf.pair_accuracy([1, np.nan, 1], [1, 1, 1], [0, 0, 1], resamples=10)
    assert found.pooled.count == 2


def test_the_interval_covers_when_prompts_differ():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        skill = rng.choice([0.5, 0.9], 60)  # a prompt is hard or easy; the mean is 0.7
        hit = rng.random((60, 6)) < skill[:, None]
        prompts = np.repeat(np.arange(60), 6)
        found = pf.pair_accuracy(np.where(hit, 1, -1).reshape(-1), np.ones(360), prompts, resamples=300, seed=trial)
        covered += found.pooled.low <= 0.7 <= found.pooled.high
    assert 0.9 <= covered / 200 <= 0.99


def test_rankings_become_every_pair_of_a_prompt_and_no_other():
    scores, ranks, prompts = [3, 1, 2, 9, 8], [1, 2, 2, 2, 1], ["x", "x", "x", "y", "y"]
    margins, preferences, of = pf.pairs_of_rankings(scores, ranks, prompts)
    assert margins.tolist() == [2, 1, -1, 1]
    assert preferences.tolist() == [1, 1, 0.5, 0]
    assert of.tolist() == ["x", "x", "x", "y"]


def enumerated(scores, ranks, k):
    """The share of all orders that agree with the scores in which a humanly best picture is in the first k."""
    fits, hit = 0, 0
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            fits += 1
            hit += any(ranks[i] == min(ranks) for i in order[:k])
    return hit / fits


def test_recall_breaks_ties_by_lot_exactly():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scores, ranks = rng.integers(0, 3, 5), rng.integers(1, 4, 5)
        k = int(rng.integers(1, 6))
        assert pf.best_in_top(scores, ranks, k) == pytest.approx(enumerated(scores, ranks, k), abs=1e-12)
        assert pf.worst_in_bottom(scores, ranks, k) == pytest.approx(enumerated(-scores, -ranks, k), abs=1e-12)


def test_recall_and_filter_over_prompts_count_those_with_more_than_k_pictures():
    scores, ranks = [3, 2, 1, 1, 2, 3, 1, 2], [1, 2, 3, 1, 2, 3, 1, 2]
    prompts = [0, 0, 0, 1, 1, 1, 2, 2]
    recall = pf.recall_at_k(scores, ranks, prompts, 1)
    assert recall.value == pytest.approx(1 / 3) and recall.count == 3
    assert pf.recall_at_k(scores, ranks, prompts, 2).count == 2
    assert pf.filter_at_k(scores, ranks, prompts, 2).value == 0.5
    with pytest.raises(TastemakerError, match="more than 3 pictures"):
        pf.recall_at_k(scores, ranks, prompts, 3)
    with pytest.raises(TastemakerError, match="for every picture"):
        pf.recall_at_k([np.nan, *scores[1:]], ranks, prompts, 1)


def test_a_random_model_recalls_k_of_n():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(4000), 8)
    found = pf.recall_at_k(rng.random(32000), np.tile(np.arange(1, 9), 4000), prompts, 2, resamples=200)
    assert found.low < 0.25 < found.high and found.high - found.low < 0.04


def test_kendall_with_its_interval():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    found = pf.kendall(x, y, resamples=200)
    assert found.value == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert 0 < found.low < found.value < found.high < 1
    with pytest.raises(TastemakerError, match="differ"):
        pf.kendall([1, 1, 1], [1, 2, 3])


def test_the_correlation_of_settings_is_that_of_their_means():
    rng = np.random.default_rng(0)
    prompts, settings = (v.reshape(-1) for v in np.meshgrid(np.arange(40), np.arange(6), indexing="ij"))
    quality = np.array([0, 1, 2, 3, 4, 5])[settings] + rng.normal(size=240)
    model = np.array([0, 1, 2, 3, 5, 4])[settings] * 10 + rng.normal(size=240)
    found = pf.mean_correlation(model, quality, settings, prompts, resamples=300)
    assert found.value == pytest.approx(scipy.stats.spearmanr([0, 1, 2, 3, 5, 4], range(6)).statistic)
    assert found.low <= found.value <= found.high and found.count == 6


# ties of the model


def counted(human, model, threshold):
    names = dict.fromkeys(("concordant", "discordant", "human", "model", "both"), 0)
    for i, j in itertools.combinations(range(len(human)), 2):
        h, m = np.sign(human[i] - human[j]), np.sign(model[i] - model[j]) * (abs(model[i] - model[j]) > threshold)
        kind = "both" if h == m == 0 else "human" if h == 0 else "model" if m == 0 else None
        names[kind or ("concordant" if h == m else "discordant")] += 1
    return names


def test_tie_counts_are_those_of_enumeration_at_every_threshold():
    rng = np.random.default_rng(0)
    human, model = rng.integers(1, 5, 20), rng.integers(0, 16, 20) / 8
    thresholds = [0.0, 0.125, 0.3, 1.0, 5.0]
    found = pf.tie_counts(human, model, thresholds)
    for i, threshold in enumerate(thresholds):
        assert {n: int(getattr(found, n)[i]) for n in counted(human, model, 0)} == counted(human, model, threshold)
    none = counted(human, model, 0.0)
    decided = none["concordant"] + none["discordant"] + none["model"]
    assert found.decided[0] == pytest.approx(none["concordant"] / decided)
    assert found.genai_bench[0] == pytest.approx(none["concordant"] / (decided + none["both"]))


def test_the_best_threshold_is_that_of_a_search_and_the_smallest_of_equals():
    rng = np.random.default_rng(1)
    human, model = rng.integers(1, 4, (5, 7)), rng.integers(0, 12, (5, 7)) / 4
    thresholds = sorted({0.0, *(abs(a - b) for row in model for a, b in itertools.combinations(row, 2))})
    values = [
        np.mean([(c["concordant"] + c["both"]) / 21 for c in (counted(h, m, t) for h, m in zip(human, model))])
        for t in thresholds
    ]
    best = max(values)
    first = next(t for t, v in zip(thresholds, values) if v >= best - 1e-12)
    assert pf.best_tie_threshold(human, model) == (pytest.approx(best, abs=1e-12), first)
    assert pf.best_tie_threshold([1, 1, 1], [0.0, 1.0, 2.0]) == (1.0, 2.0)


# correlations, against scipy


@pytest.mark.parametrize("n, levels", [(2, 0), (9, 0), (33, 0), (40, 0), (12, 3), (50, 4), (200, 30)])
def test_correlations_are_scipys(n, levels):
    rng = np.random.default_rng(n)
    for _ in range(10):
        x, y = (rng.integers(0, levels, n) if levels else rng.normal(size=n) for _ in range(2))
        for ours, theirs in (
            (correlation.kendall(x, y), scipy.stats.kendalltau(x, y).statistic),
            (correlation.kendall_c(x, y), scipy.stats.kendalltau(x, y, variant="c").statistic),
            (correlation.kendall_p(x, y), scipy.stats.kendalltau(x, y).pvalue),
            (correlation.spearman(x, y), scipy.stats.spearmanr(x, y).statistic),
            (correlation.pearson(x, y), scipy.stats.pearsonr(x, y).statistic),
        ):
            assert ours == pytest.approx(theirs, abs=1e-12)


def test_kendall_next_to_a_perfect_order_is_exact_for_long_rows():
    x = np.arange(300.0)
    y = x.copy()
    y[[0, 1]] = y[[1, 0]]
    assert correlation.kendall_p(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).pvalue, rel=1e-9)


def test_a_constant_side_has_no_correlation_and_a_missing_number_is_refused():
    figures = (correlation.kendall, correlation.kendall_c, correlation.kendall_p, correlation.spearman)
    assert all(math.isnan(f([1, 1, 1], [1, 2, 3])) for f in (*figures, correlation.pearson))
    with pytest.raises(TastemakerError, match="missing"):
        correlation.kendall([1, np.nan], [1, 2])
    with pytest.raises(TastemakerError, match="one length"):
        correlation.pearson([1, 2, 3], [1, 2])


def test_kendall_of_ten_thousand_rows_takes_no_table_of_pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    y = x + rng.normal(size=20_000)
    assert correlation.kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)


def test_hpsv2s_inversion_score_counts_ties_as_agreement():
    assert pf.inversion_score([0, 1, 2], [1, 1, 2]) == 1
    assert pf.inversion_score([2, 1, 0], [1, 1, 2]) == pytest.approx(1 / 3)
