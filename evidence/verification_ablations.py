"""verification.py, fifth part: what each piece is worth, on one seed.

PARM's three answers alone and PARM without them, and other manners of asking; what PARM's choice of pairs adds to
iterative DPO beyond as much training by labels; successive halving over compute; likeness of paths by step.
"""

from __future__ import annotations

from typing import Any

from . import verification_similarity
from .rows import row
from .verification_curves import Spending, ratio_row
from .verification_lab import COMMAND, Lab, measured, over_seeds, right
from .verification_search import PARTS, best_of, cost_of, halved, parm_of, part_of, pool

CONTROL = "it_dpo_third"  # as much training as it_dpo_guided, by labels


def run_all(lab: Lab, seed: int) -> None:
    pool(lab, CONTROL, seed)
    for name in PARTS:
        part_of(lab, name, seed)
    for n in lab.scale.counts:
        halved(lab, n, seed)
    verification_similarity.similarity(lab, seed)


def rows(lab: Lab) -> list[dict[str, Any]]:
    seeds = lab.seeds_of_ablations
    over_seeds(lab, run_all, seeds)
    halving, orm = (Spending(lab, search, seeds) for search in (halved, best_of))
    found = [control_row(lab), *(part_row(lab, name) for name in PARTS), ratio_row("halving", halving, orm)]
    return [*found, *verification_similarity.rows(lab)]


def control_row(lab: Lab) -> dict[str, Any]:
    """What PARM's choice of pairs is worth beyond as much training by labels."""
    seeds = lab.seeds_of_ablations
    prompts = lab.prompts * len(seeds)
    ours, control = (right([pool(lab, name, seed) for seed in seeds], "plain") for name in ("it_dpo_guided", CONTROL))
    value, tasks = measured(prompts, ours - control)
    beside = {"tasks": tasks, CONTROL: measured(prompts, control)[0]}
    return row("it_dpo_guided_minus_as_much_training", value, [value.value], seeds, COMMAND, None, beside)


def part_row(lab: Lab, name: str) -> dict[str, Any]:
    """A part of PARM alone, or PARM without it, less the base; beside it, less PARM."""
    seeds = lab.seeds_of_ablations
    prompts = lab.prompts * len(seeds)
    records = [part_of(lab, name, seed) for seed in seeds]
    ours = right(records, "kept")
    base = right([pool(lab, "base", seed) for seed in seeds], "plain")
    whole = right([parm_of(lab, "base", seed) for seed in seeds], "kept")
    value, tasks = measured(prompts, ours - base)
    beside = {
        "tasks": tasks,
        "score": measured(prompts, ours)[0],
        "less_parm": measured(prompts, ours - whole)[0],
        "of_a_picture": cost_of(records, len(lab.prompts)),
    }
    return row(f"parm_{name}_minus_base", value, [value.value], seeds, COMMAND, None, beside)
