"""verification.py, first part: the judges, once per seed, on prompts that they did not learn from.

Accuracy counts every prompt alike; intervals resample prompts, those of each seed for themselves. Best-of-N needs
less, and more: that of one prompt's pictures the right one ranks higher, which `table_a` measures.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tastemaker.evaluation.intervals import bootstrap_mean

from .rows import row
from .verification_lab import COMMAND, Lab, over_seeds
from .verification_training import RECIPES, judge_record


def train_all(lab: Lab, seed: int) -> None:
    for name in RECIPES:
        judge_record(lab, name, seed)


def rows(lab: Lab) -> list[dict[str, Any]]:
    """A row for each judge and question."""
    over_seeds(lab, train_all)
    found = []
    for name in RECIPES:
        records = [judge_record(lab, name, seed) for seed in lab.scale.seeds]
        found += [accuracy_row(lab, name, question, records) for question in records[0]["accuracy"]]
    return found


def accuracy_row(lab: Lab, name: str, question: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    each = [one["accuracy"][question] for one in records]
    values = np.concatenate(each)
    beside = {
        "share_of_the_commoner_answer": [one["base_rate"][question] for one in records],
        "steps": [one["steps"] for one in records],
    }
    value = bootstrap_mean(values, np.arange(len(values)))
    claim = f"judge_{name}_{question}_accuracy"
    return row(claim, value, [float(np.mean(one)) for one in each], lab.scale.seeds, COMMAND, beside=beside)
