"""Scores of pictures from probabilities of right answers: Soft-TIFA (GenEval 2, arXiv 2512.16853) and TIFA.

    atom-level    the arithmetic mean over a picture's questions: how much of the prompt is there
    prompt-level  the geometric mean: whether all of it is there; one answer that is surely wrong makes it 0
    hard          the share of questions whose likeliest answer is the right one (TIFA, arXiv 2303.11897)

A picture with a question that got no answer has no score (NaN); it is left out of means, and counted.
Letters: Q questions of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.questions import Question
from ..errors import TastemakerError
from ..records import Interval
from .intervals import bootstrap_mean


@dataclass(frozen=True)
class Answered:
    """A picture's questions with the probability (Q,) of each right answer in [0, 1] and whether it was the
    likeliest; NaN and False where there was no answer."""

    prompt: str
    questions: Sequence[Question]
    probabilities: Sequence[float]
    likeliest: Sequence[bool]

    @property
    def whole(self) -> bool:
        return not any(map(math.isnan, self.probabilities))


def arithmetic(probabilities: Sequence[float]) -> float:
    """(Q,) in [0, 1] -> their mean, in [0, 1]; NaN where one is."""
    return sum(probabilities) / count_of(probabilities)


def geometric(probabilities: Sequence[float]) -> float:
    """(Q,) in [0, 1] -> their geometric mean, in [0, 1]; NaN where one is."""
    if any(map(math.isnan, probabilities)):
        return math.nan
    logs = [math.log(p) if p > 0 else -math.inf for p in probabilities]
    return math.exp(sum(logs) / count_of(probabilities))


def count_of(values: Sequence[float]) -> int:
    if not values:
        raise TastemakerError("a picture without questions has no score; expected at least one question")
    return len(values)


def overall(rows: Sequence[Answered]) -> dict[str, Interval | float]:
    """The three scores over all pictures; intervals resample prompts, then pictures."""
    return {
        "atom-level": mean(rows, lambda row: arithmetic(row.probabilities)),
        "prompt-level": mean(rows, lambda row: geometric(row.probabilities)),
        "hard": mean(rows, lambda row: sum(row.likeliest) / len(row.likeliest) if row.whole else math.nan),
    }


def by_skill(rows: Sequence[Answered]) -> dict[str, Interval | float]:
    """The mean probability over all questions of a skill."""
    asked = [(q.skill, row.prompt, p) for row in rows for q, p in zip(row.questions, row.probabilities) if q.skill]
    return {skill: of_values(*zip(*own)) for skill, own in _grouped((s, (v, p)) for s, p, v in asked).items()}


def by_length(rows: Sequence[Answered]) -> dict[str, Interval | float]:
    """The prompt-level score by the number of questions."""
    parts = _grouped((len(row.questions), row) for row in rows)
    return {
        f"{n} questions": mean(part, lambda row: geometric(row.probabilities)) for n, part in sorted(parts.items())
    }


def mean(rows: Sequence[Answered], score: Callable[[Answered], float]) -> Interval | float:
    return of_values([score(row) for row in rows], [row.prompt for row in rows])


def of_values(values: Sequence[float], prompts: Sequence[str]) -> Interval | float:
    """With its interval where two values or more are there; NaN where none is."""
    held = np.isfinite(np.asarray(values, np.float64))
    if held.sum() > 1:
        return bootstrap_mean(np.asarray(values)[held], np.asarray(prompts)[held])
    return float(np.asarray(values)[held].sum()) if held.any() else math.nan


def _grouped(pairs: Iterable[tuple]) -> Mapping:
    found: dict = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
