"""N-curves: the expected report by hand, a peak that is found, and none where there is none."""

import itertools

import numpy as np
import pytest

from tastemaker.errors import TastemakerError
from tastemaker.evaluation.n_curve import curve_of, peak_of, reports_of


def test_the_report_is_the_mean_over_every_choice():
    rng = np.random.default_rng(0)
    select, report = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    found = reports_of(select, report)
    assert list(found) == [1, 2, 4, 5]
    for n, values in found.items():
        for a, b, value in zip(select, report, values):
            means = [b[max(own, key=lambda i: a[i])] for own in itertools.combinations(range(5), n)]
            assert value == pytest.approx(np.mean(means))


def test_a_sound_verifier_rises_to_the_end():
    rng = np.random.default_rng(1)
    report = rng.normal(size=(60, 32))
    reports = reports_of(report + 0.3 * rng.normal(size=report.shape), report)
    peak = peak_of(reports)
    assert peak.n == 32 and peak.fall is None and not peak.exploited
    values = [v.value for v in curve_of(reports).values()]
    assert values == sorted(values) and values[-1] > 1.5


def test_an_exploitable_verifier_peaks_and_falls():
    """One picture in ten looks perfect to the verifier and is worthless: with many candidates it is always found."""
    rng = np.random.default_rng(2)
    report = rng.normal(size=(200, 64))
    fooled = rng.random(report.shape) < 0.1
    select, report = np.where(fooled, 100.0, report), np.where(fooled, -3.0, report)
    peak = peak_of(reports_of(select, report))
    assert 1 < peak.n < 16 and peak.exploited and peak.fall.high < -1
    assert peak.value.low > float(np.mean(reports_of(select, report)[64])) + 1


def test_what_is_missing_is_left_out():
    nan = np.nan
    reports = reports_of([[1, nan, 2], [nan] * 3, [3, 1, 2]], [[0, 5, 1], [1, 1, 1], [1, nan, 0]])
    assert {n: v.tolist() for n, v in reports.items()}[3] == [1.0]  # of one prompt alone
    with pytest.raises(TastemakerError, match="no prompt has scores"):
        reports_of([[nan]], [[1.0]])
    with pytest.raises(TastemakerError, match="expected scores"):
        reports_of([[1.0, 2.0]], [[1.0]])
