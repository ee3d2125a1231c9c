"""Scores from probabilities of right answers, by hand."""

import math

import pytest

from tastemaker.data.questions import Question
from tastemaker.errors import TastemakerError
from tastemaker.evaluation.questions import Answered, arithmetic, by_length, by_skill, geometric, overall


def row(prompt, *values, skills=()):
    questions = [Question(f"{i}?", skill=skills[i] if skills else "") for i in range(len(values))]
    return Answered(prompt, questions, values, [value > 0.5 for value in values])


def test_means_of_one_picture():
    assert arithmetic([0.9, 0.4, 0.2]) == pytest.approx(0.5)
    assert geometric([0.9, 0.4, 0.2]) == pytest.approx(0.072 ** (1 / 3))
    assert geometric([0.9, 0.0]) == 0 and geometric([1.0, 1.0]) == 1 and arithmetic([1.0]) == 1
    assert math.isnan(geometric([0.5, math.nan])) and math.isnan(arithmetic([0.5, math.nan]))
    assert geometric([1e-200] * 3) == pytest.approx(1e-200)
    for mean in (arithmetic, geometric):
        with pytest.raises(TastemakerError, match="without questions"):
            mean([])


def test_over_pictures_an_unanswered_one_is_left_out():
    rows = [row("a", 0.9, 0.4), row("a", 0.8, 0.2), row("b", 1.0, 1.0), row("c", math.nan, 1.0)]
    found = overall(rows)
    assert found["atom-level"].value == pytest.approx((0.65 + 0.5 + 1.0) / 3) and found["atom-level"].count == 3
    assert found["prompt-level"].value == pytest.approx((0.6 + 0.4 + 1.0) / 3)
    assert found["hard"].value == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert overall([row("c", math.nan)])["hard"] is not None and math.isnan(overall([row("c", math.nan)])["hard"])


def test_by_skill_over_questions_and_by_length_over_pictures():
    rows = [row("a", 0.9, 0.4, skills=("object", "count")), row("b", 0.5, 0.8, 0.2, skills=("object", "count", ""))]
    skills = by_skill(rows)
    assert {name: round(i.value, 6) for name, i in skills.items()} == {"object": 0.7, "count": 0.6}
    assert by_length(rows) == {"2 questions": pytest.approx(0.6), "3 questions": pytest.approx(0.08 ** (1 / 3))}
