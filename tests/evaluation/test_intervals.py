"""Intervals: closed forms, coverage on simulated data, and what is left out."""

import math

import numpy as np
import pytest
import scipy.stats

from tastemaker.errors import TastemakerError
from tastemaker.evaluation import intervals
from tastemaker.evaluation.intervals import (
    bootstrap_mean,
    paired_difference,
    spearman,
    unpaired_difference,
    wilson,
)


@pytest.mark.parametrize("successes, n", [(0, 10), (3, 10), (10, 10), (250, 553), (1, 1)])
def test_wilson_agrees_with_scipy(successes, n):
    ours, theirs = wilson(successes, n), scipy.stats.binomtest(successes, n).proportion_ci(0.95, "wilson")
    assert (ours.value, ours.count) == (successes / n, n)
    assert ours.low == pytest.approx(theirs.low, abs=1e-12) and ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert ours.low <= ours.value <= ours.high


def test_wilson_refuses_impossible_counts():
    for successes, n in [(1, 0), (0, 0), (5, 4), (-1, 4)]:
        with pytest.raises(TastemakerError, match="successes"):
            wilson(successes, n)


@pytest.mark.parametrize("between, within", [(1.0, 0.2), (0.0, 1.0), (0.7, 0.7)])
def test_the_two_level_bootstrap_covers_the_mean_whatever_varies(between, within):
    rng = np.random.default_rng(0)
    prompts, covered = np.repeat(np.arange(40), 4), 0
    for trial in range(200):
        scores = 3 + between * rng.normal(size=40)[prompts] + within * rng.normal(size=160)
        interval = bootstrap_mean(scores, prompts, resamples=300, seed=trial)
        covered += interval.low <= 3 <= interval.high
    assert covered >= 0.90 * 200  # 95 % less three standard errors of 200 trials


def test_ignoring_prompts_would_be_too_sure():
    rng = np.random.default_rng(1)
    prompts = np.repeat(np.arange(30), 8)
    scores = rng.normal(size=30)[prompts] + 0.1 * rng.normal(size=240)
    honest, naive = bootstrap_mean(scores, prompts), bootstrap_mean(scores, np.arange(240))
    assert honest.high - honest.low > 2 * (naive.high - naive.low)


def test_pairing_removes_what_both_models_share():
    rng = np.random.default_rng(2)
    prompts = np.repeat(np.arange(50), 2)
    shared = rng.normal(size=50)[prompts]
    a, b = shared + 0.1 + 0.05 * rng.normal(size=100), shared + 0.05 * rng.normal(size=100)
    paired, unpaired = paired_difference(a, b, prompts), unpaired_difference(a, prompts, b, prompts)
    assert paired.value == pytest.approx((a - b).mean()) == unpaired.value
    assert paired.verdict() == "better" and unpaired.verdict() == "undecided"
    assert paired_difference(b, a, prompts).verdict() == "worse"


def test_a_seed_repeats_and_row_order_and_names_of_prompts_do_not_matter():
    scores, prompts = np.sqrt(np.arange(30.0)), np.repeat(np.arange(10), 3)
    assert bootstrap_mean(scores, prompts) == bootstrap_mean(scores, prompts)
    assert bootstrap_mean(scores, prompts) == bootstrap_mean(scores, np.array(list("abcdefghij"))[prompts])
    assert bootstrap_mean(scores, prompts, seed=1) != bootstrap_mean(scores, prompts, seed=2)


def test_every_resample_keeps_pictures_with_their_prompts(monkeypatch):
    prompts = np.array([0, 1, 1, 2, 2, 2, 1])
    monkeypatch.setattr(intervals, "ROWS", 7 * 20)  # 50 resamples in three portions
    portions = list(intervals.draw_rows(prompts, 50, seed=0))
    assert [count for *_, count in portions] == [20, 20, 10]
    for rows, which, count in portions:
        for i in range(count):
            counts = np.bincount(prompts[rows[which == i]], minlength=3)
            assert (counts % [1, 3, 3] == 0).all() and (counts / [1, 3, 3]).sum() == 3


def test_missing_scores_are_left_out_and_said():
    scores = np.array([1.0, math.nan, 3.0, 5.0])
    with pytest.warns(UserWarning, match="1 of 4 measurements"):
        interval = bootstrap_mean(scores, np.arange(4))
    assert (interval.value, interval.count) == (3.0, 3)
    with pytest.warns(UserWarning, match="2 of 4"):
        assert paired_difference(scores, [1, 2, math.nan, 4], np.arange(4)).value == 0.5


def test_bad_input_is_refused():
    with pytest.raises(TastemakerError, match="one length"):
        bootstrap_mean([1.0, 2.0], [0])
    with pytest.raises(TastemakerError, match="got floats"):
        bootstrap_mean([1.0, 2.0], [0.0, 1.0])
    with pytest.raises(TastemakerError, match="at least 2"):
        bootstrap_mean([1.0], [0])
    with pytest.raises(TastemakerError, match="all of one side are equal"):
        spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])


def test_spearman_agrees_with_scipy_with_ties_and_covers():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 80), rng.integers(0, 6, 80)
    assert spearman(x, y).value == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    pairs = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(100, 60))
    truth = 6 / math.pi * math.asin(0.6 / 2)  # of the bivariate normal
    found = [spearman(p[:, 0], p[:, 1], resamples=200) for p in pairs]
    assert sum(f.low <= truth <= f.high for f in found) >= 87
