"""Any-of-N and best-of-N against every choice of N pictures, one by one."""

import itertools
import math

import numpy as np
import pytest

from tastemaker.errors import TastemakerError
from tastemaker.evaluation.geneval import geneval
from tastemaker.evaluation.of_n import any_of, any_of_curve, best_of, best_of_curve, counts
from tastemaker.records import Prompt


def winner(correct, scores, chosen):
    """Whether the best is right; of equals each with equal chance; nothing is chosen where all are NaN."""
    held = [i for i in chosen if not math.isnan(scores[i])]
    best = [correct[i] for i in held if scores[i] == max(scores[j] for j in held)]
    return sum(best) / len(best) if best else 0.0


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_both_are_the_mean_over_every_choice(k):
    correct = [1, 0, 0, 1, 0, 0]
    choices = list(itertools.combinations(range(6), k))
    assert any_of(correct, k) == pytest.approx(np.mean([max(correct[i] for i in c) for c in choices]))
    for scores in ([0.3, 0.9, 0.1, 0.2, 0.5, 0.4], [1, 1, 0, 0, 0, 0], [math.nan, 0.5, math.nan, 0.7, 0.1, math.nan]):
        expected = np.mean([winner(correct, scores, c) for c in choices])
        assert best_of(correct, scores, k) == pytest.approx(expected)


def test_no_selector_beats_any_of_n_and_a_perfect_one_reaches_it():
    correct = [0, 1, 0, 1, 0, 0, 0, 0]
    for k in (1, 2, 4, 8):
        assert best_of(correct, correct, k) == pytest.approx(any_of(correct, k))
        assert best_of(correct, [-c for c in correct], k) <= any_of(correct, k)
    assert best_of(correct, [math.nan] * 8, 4) == 0 and best_of(correct, [0.0] * 8, 4) == pytest.approx(0.25)


def test_curves_average_over_tasks_and_end_at_the_fewest_pictures():
    prompts = [Prompt(f"{tag} {i}", spec={"tag": tag}) for tag in ("colors", "position") for i in range(6)]
    rows = [p for p in prompts for _ in range(5)] + [prompts[0]]  # one prompt has a picture more
    rng = np.random.default_rng(0)
    correct = (rng.random(len(rows)) < 0.4).astype(float)
    correct[7] = math.nan  # a check that failed counts as wrong
    any_n = any_of_curve(rows, correct)
    assert list(any_n) == [1, 2, 4, 5] == counts(5) and counts(4) == [1, 2, 4] and counts(1) == [1]
    values = [interval.value for interval in any_n.values()]
    assert values == sorted(values) and all(i.low <= i.value <= i.high for i in any_n.values())
    by_prompt = {}
    for prompt, right in zip(rows, np.nan_to_num(correct)):
        by_prompt.setdefault((prompt.spec["tag"], prompt.text), []).append(right)
    tasks = [[any_of(v, 4) for (tag, _), v in by_prompt.items() if tag == t] for t in ("colors", "position")]
    assert any_n[4].value == pytest.approx(np.mean([np.mean(t) for t in tasks]))
    best = best_of_curve(rows, correct, np.nan_to_num(correct))
    assert best[4].value == pytest.approx(any_n[4].value)
    alike = best_of_curve(rows, correct, np.zeros(len(rows)))
    assert alike[1].value == pytest.approx(alike[4].value)  # a blind selector gains nothing
    even = rows[:-1]
    assert any_of_curve(even, correct[:-1])[1].value == pytest.approx(geneval(even, correct[:-1]).overall.value)
    with pytest.raises(TastemakerError, match="one score per picture"):
        best_of_curve(rows, correct, [0.0])


def test_n_has_to_be_there():
    for k in (0, 3):
        with pytest.raises(TastemakerError, match="1 <= N <= 2"):
            any_of([1, 0], k)
