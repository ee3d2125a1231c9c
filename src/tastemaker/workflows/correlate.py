"""How rewards agree with people: rank correlation of scores with a table of human ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..data.datasets import read_table
from ..data.scores import Scores, read_scores
from ..errors import TastemakerError, UnknownName
from ..evaluation.intervals import RESAMPLES, spearman
from ..records import Interval
from ..rewards.combine import rank


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of one reward with one column of human ratings."""

    reward: str
    human: str
    spearman: Interval
    prompts: int


def correlate(
    scores: str | Path | Scores,
    ratings: str | Path,
    columns: Sequence[str] | None = None,
    within: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Correlation]:
    """Every reward against every column of ratings, over the pictures that both name.

    ratings: a CSV with the column `file` as in the scores, numeric columns, and if it has one `prompt`, by which
    the interval resamples (else every picture stands alone). columns None: all that are numbers throughout, but for
    those that begin with `std`. within: a column such as `generator`: ranks are taken inside each of its groups
    first, so that differences between the groups say nothing.
    Raises UnknownName for a column, and TastemakerError where no picture is in both.
    """
    scores = scores if isinstance(scores, Scores) else read_scores(scores)
    rows, known = read_table(ratings)
    if "file" not in known:
        raise UnknownName("column", "file", known, f"{ratings} must name its pictures as the scores do")
    rated = {row["file"]: row for _, row in rows}
    kept = [i for i, file in enumerate(scores.files) if file in rated]
    if not kept:
        raise TastemakerError(
            f"no picture of the scores is in {ratings}: it says {rows[:1]}, the scores {scores.files[:1]}"
        )
    matched = [rated[scores.files[i]] for i in kept]
    groups = _groups(matched, within)
    human = {name: _inside(_numbers(name, matched), groups) for name in columns or _numeric(matched, known)}
    prompts = np.unique([row["prompt"] for row in matched] if "prompt" in known else kept, return_inverse=True)[1]
    values = scores.values[kept]
    return [
        Correlation(
            reward,
            name,
            spearman(_inside(values[:, r], groups), numbers, prompts, resamples, seed),
            int(prompts.max()) + 1,
        )
        for r, reward in enumerate(scores.names)
        for name, numbers in human.items()
    ]


def print_correlations(found: Sequence[Correlation], console: Console | None = None) -> None:
    """A table, a line for each reward and column of ratings; it fits 80 columns."""
    table = Table(box=SIMPLE)
    for heading in ("reward", "people's", "Spearman, 95 %", "pictures", "prompts"):
        table.add_column(heading, no_wrap=True)
    for c in found:
        measured = f"{c.spearman.value:+.3f} ({c.spearman.low:+.3f}, {c.spearman.high:+.3f})"
        table.add_row(c.reward, c.human, measured, str(c.spearman.count), str(c.prompts))
    (console or Console()).print(table)


def _groups(rows: Sequence[Mapping[str, str]], within: str | None) -> Tensor | None:
    if within is None:
        return None
    if within not in rows[0]:
        raise UnknownName("column to rank within", within, rows[0])
    return torch.from_numpy(np.unique([row[within] for row in rows], return_inverse=True)[1])


def _inside(values: Tensor, groups: Tensor | None) -> np.ndarray:
    """(N,) as they are, or as ranks inside each group."""
    return (values if groups is None else rank(values[:, None], groups)[:, 0]).double().numpy()


def _numeric(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> list[str]:
    found = [c for c in columns if not c.startswith("std") and all(_number(row[c]) is not None for row in rows)]
    if not found:
        raise TastemakerError(f"no column of the ratings is numeric throughout; there are: {', '.join(columns)}")
    return found


def _numbers(name: str, rows: Sequence[Mapping[str, str]]) -> Tensor:
    if name not in rows[0]:
        raise UnknownName("column of ratings", name, rows[0])
    values = [_number(row[name]) for row in rows]
    if None in values:
        bad = rows[values.index(None)]
        raise TastemakerError(f"column `{name}`: expected a number for {bad['file']}, got {bad[name]!r}")
    return torch.tensor(values, dtype=torch.float64)


def _number(text: str) -> float | None:
    """A number; NaN for an empty cell; None for anything else."""
    try:
        return float(text or "nan")
    except ValueError:
        return None
