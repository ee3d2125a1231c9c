"""A share of nothing is no share; else it is Wilson's (whose figures tests/evaluation/test_intervals.py checks)."""

import pytest

from tastemaker.errors import TastemakerError
from tastemaker.shares import share_of, wilson


def test_a_share_of_nothing_is_none():
    assert share_of(0, 0) is None
    assert share_of(3, 4) == wilson(3, 4)


def test_more_successes_than_trials_are_refused():
    with pytest.raises(TastemakerError, match="got 5 of 4"):
        share_of(5, 4)
