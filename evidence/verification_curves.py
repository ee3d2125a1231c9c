"""verification.py, fourth part: what verification costs, how far it carries, and why.

Compute is all of it, by the searches' own ledgers: the generator's, the decoder's and the verifier's operations, and
their seconds. `parm_compute_ratio` is what PARM has to spend for the score that best-of-N with the fine-tuned ORM
ends with, over what that spends, on the line between PARM's scores at N = 1, 2, 4 ... over the logarithm of compute;
it is infinite where PARM never gets there. N-curves are selected by a judge and reported by the world's check.
Letters: S seeds, P prompts, N candidates of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluation.geneval import geneval, task_codes
from tastemaker.evaluation.intervals import RESAMPLES, draw_rows
from tastemaker.evaluation.n_curve import curve_of, peak_of
from tastemaker.records import Interval

from .rows import row
from .verification_lab import COMMAND, Lab, over_seeds, right
from .verification_search import (
    best_of,
    cost_of,
    flops_per_picture,
    mean_curve,
    parm_of,
    pool,
    require_none_after_pruning,
    seconds_per_picture,
)

Search = Callable[[Lab, int, int], dict[str, Any]]  # lab, N, seed -> its record
CURVES = (("base", "orm_zero_shot"), ("base", "orm"), ("base", "parm"), ("it_dpo_guided", "parm"))


def parm_at(lab: Lab, n: int, seed: int) -> dict[str, Any]:
    return parm_of(lab, "base", seed, n)


def run_all(lab: Lab, seed: int) -> None:
    for name, _ in CURVES:
        pool(lab, name, seed)
    for n in lab.scale.counts:
        parm_at(lab, n, seed)


def rows(lab: Lab) -> list[dict[str, Any]]:
    over_seeds(lab, run_all)
    parm, orm = (Spending(lab, search, lab.scale.seeds) for search in (parm_at, best_of))
    curves = [curve_row(lab, name, judge) for name, judge in CURVES]
    return [ratio_row("parm", parm, orm), pruning_row(parm), *curves]


class Spending:
    """Score and compute of one search at every N of the curves. Raises TastemakerError where a path that was cut off
    has cost anything after that."""

    def __init__(self, lab: Lab, search: Search, seeds: Sequence[int]):
        self.lab, self.seeds, self.counts = lab, seeds, lab.scale.counts
        self.prompts = lab.prompts * len(seeds)
        self.records = [[search(lab, n, seed) for seed in seeds] for n in self.counts]
        every = [one for of_n in self.records for one in of_n]
        self.paths, self.cut_off = sum(one["ledger"]["paths"] for one in every), require_none_after_pruning(every)
        self.right = [right(one, "kept") for one in self.records]  # (S P,) each
        pictures = len(lab.prompts)
        self.flops = [flops_per_picture(one, pictures) for one in self.records]
        self.seconds = [seconds_per_picture(one, pictures) for one in self.records]

    def as_dict(self) -> dict[str, Any]:
        scores = [geneval(self.prompts, values).overall for values in self.right]
        costs = [cost_of(one, len(self.lab.prompts)) for one in self.records]
        columns = {"score": scores, "gflops": [v / 1e9 for v in self.flops], "seconds": self.seconds, "cost": costs}
        return {name: dict(zip(map(str, self.counts), values)) for name, values in columns.items()}


def needed(costs: Sequence[float], scores: Sequence[float], level: float) -> float:
    """The cost at which the scores first reach the level, linear in the cost's logarithm between two of them; inf
    where they never do. Before the first it is not known better than that one."""
    if scores[0] >= level:
        return float(costs[0])
    for a, b, low, high in zip(costs, costs[1:], scores, scores[1:]):
        if low < level <= high:
            return float(np.exp(np.log(a) + (np.log(b) - np.log(a)) * (level - low) / (high - low)))
    return float("inf")


def ratio_interval(ours: Spending, theirs: Spending, place: int, costs: str) -> Interval:
    """Of `needed` over what theirs costs at its N number `place`; prompts are resampled, the same for both."""
    tasks, groups = task_codes(ours.prompts)
    mine, known = getattr(ours, costs), getattr(theirs, costs)[place]

    def ratios(rows: NDArray, which: NDArray, count: int) -> list[float]:
        table = [task_means(values, tasks, rows, which, count) for values in (*ours.right, theirs.right[place])]
        return [needed(mine, scores, level) / known for *scores, level in zip(*table)]

    (value,) = ratios(np.arange(len(groups)), np.zeros(len(groups), np.int64), 1)
    drawn = np.concatenate([ratios(*draw) for draw in draw_rows(groups, RESAMPLES, 0)])
    low, high = np.percentile(drawn, [2.5, 97.5], method="inverted_cdf")  # which also knows infinity
    return Interval(value, float(low), float(high), len(groups))


def task_means(values: NDArray, tasks: NDArray, rows: NDArray, which: NDArray, count: int) -> NDArray:
    """(count,) the mean over tasks of the mean in each, of `count` resamples."""
    number = int(tasks.max()) + 1
    cells = which * number + tasks[rows]
    sizes = np.bincount(cells, minlength=count * number).reshape(count, number)
    sums = np.bincount(cells, values[rows], count * number).reshape(count, number)
    return (sums / sizes.clip(1)).sum(1) / (sizes > 0).sum(1)


def ratio_row(name: str, ours: Spending, theirs: Spending) -> dict[str, Any]:
    """Against the ORM at the most candidates; beside, at fewer, and in seconds."""
    last = len(theirs.counts) - 1
    value = ratio_interval(ours, theirs, last, "flops")
    beside = {
        "seconds": ratio_interval(ours, theirs, last, "seconds"),
        "at": {str(n): ratio_interval(ours, theirs, k, "flops") for k, n in enumerate(theirs.counts[:-1])},
        "curves": {"orm": theirs.as_dict(), name: ours.as_dict()},
    }
    claimed = name == "parm"
    return row(
        f"{name}_compute_ratio", value, [], ours.seeds, COMMAND, 0.5 if claimed else None, beside, unit="ratio"
    )


def pruning_row(parm: Spending) -> dict[str, Any]:
    """Network evaluations of paths after they were cut off: the ledger counts them where the network is called."""
    none, beside = Interval(0.0, 0.0, 0.0, parm.cut_off), {"paths": parm.paths, "cut_off": parm.cut_off}
    return row("evaluations_after_pruning", none, [], parm.seeds, COMMAND, 0.0, beside,
               unit="network evaluations")  # fmt: skip


def curve_row(lab: Lab, name: str, judge: str) -> dict[str, Any]:
    """N chosen by a judge, reported by the check: the highest mean less that of one candidate, the n where it is, and
    how much the most candidates lose against it. Every choice of n of the N candidates counts; a mean over prompts,
    not over tasks."""
    records = [pool(lab, name, seed) for seed in lab.scale.seeds]
    reports = mean_curve(records, judge)
    peak, curve = peak_of(reports), curve_of(reports)
    beside = {
        "peak_at": peak.n,
        "peak": peak.value,
        "fall_to_the_most": peak.fall,
        "exploited": peak.exploited,
        "curve": {str(n): one for n, one in curve.items()},
        "by_one_who_always_knows": {str(n): one for n, one in curve_of(mean_curve(records, "any")).items()},
    }
    ends = [mean_curve([one], judge) for one in records]
    each = [float(of_seed[peak.n].mean() - of_seed[1].mean()) for of_seed in ends]
    gain = peak_of({n: values - reports[1] for n, values in reports.items()}).value
    return row(f"n_curve_{name}_{judge}", gain, each, lab.scale.seeds, COMMAND, None, beside)
