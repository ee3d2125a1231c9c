"""verification.py, third part: the paper's Table B. The same searches with reflection and without it.

Each search ends as PARM does and then goes on, so that one run gives both: what PARM had kept, and what stands after
at most three reflections. `remask` fills the regions at fault in again, `rewrite` draws anew from a prompt that says
once more what was missed, and `redraw` from the same prompt, which needs no critique: the others have to be better.
All are of the base. `correct` does the first two at once, by a generator that was tuned to correct itself, as the
paper's is: there the search before is that generator's too. With one path instead of N, reflection is all that there
is to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tastemaker.evaluation.geneval import compare, geneval
from tastemaker.picture_bytes import from_bytes
from tastemaker.records import Ledger
from tastemaker.search import reflect
from tastemaker.search.selected import choose

from .rows import row
from .verification_lab import COMMAND, Lab, over_seeds, over_tasks, right
from .verification_search import FIRST_LOOK, checked, cost_of, turns
from .verification_training import corrected, judge_of

WAYS = ("correct", "remask", "rewrite", "redraw")  # the paper's is the first
PAPER, TARGET = 0.09, 0.09  # 0.61 without, 0.70 with


def reflected(lab: Lab, way: str, n: int, seed: int) -> dict[str, Any]:
    """`right` (P,) with reflection and without, and how many pictures were drawn again and kept."""

    def make() -> dict[str, Any]:
        judge, ledger, kept = judge_of(lab, "parm", seed), Ledger(), []
        config = reflect.Config(n, way=way, first_look=FIRST_LOOK)
        generator = corrected(lab, seed) if way == "correct" else lab.generator()
        for found, prompts in turns(lab, reflect, generator, judge, config, seed, ledger):
            first, own = choose(found.scores[:, :n]).clamp_min(0), torch.arange(len(prompts))
            before, after = (
                checked(from_bytes(found.pictures[own, place]), prompts)
                for place in (first, found.chosen.clamp_min(0))
            )
            redrawn = ~found.scores[:, n].isnan()
            kept.append(torch.stack([after, before, redrawn, found.chosen >= n]).int())
        after, before, redrawn, taken = torch.cat(kept, 1).tolist()
        return {
            "right": {"with": after, "without": before},
            "redrawn": redrawn,
            "taken": taken,
            "ledger": ledger.as_dict(),
        }

    return lab.once(f"reflect-{way}-{n}-{seed}", make)


def run_all(lab: Lab, seed: int) -> None:
    for way in WAYS:
        reflected(lab, way, lab.scale.n, seed)
        if seed in lab.seeds_of_ablations:
            reflected(lab, way, 1, seed)


def rows(lab: Lab) -> list[dict[str, Any]]:
    over_seeds(lab, run_all)
    found = []
    for way in WAYS:
        claim = "reflection_delta" if way == WAYS[0] else f"reflection_{way}_delta"
        found.append(reflection_row(lab, claim, way, lab.scale.n, lab.scale.seeds))
        found.append(reflection_row(lab, f"{claim}_of_one_path", way, 1, lab.seeds_of_ablations))
    return found


def reflection_row(lab: Lab, claim: str, way: str, n: int, seeds: Sequence[int]) -> dict[str, Any]:
    records = [reflected(lab, way, n, seed) for seed in seeds]
    prompts, sides = lab.prompts * len(seeds), {key: right(records, key) for key in ("with", "without")}
    change = compare(prompts, sides["with"], sides["without"])
    each = [over_tasks(lab.prompts, right([one], "with") - right([one], "without")) for one in records]
    figures = {key: geneval(prompts, values) for key, values in sides.items()}
    beside: dict[str, Any] = {key: {"overall": f.overall, "tasks": f.tasks} for key, f in figures.items()}
    beside |= {
        "tasks": change.tasks,
        "drawn_again": share(records, "redrawn"),
        "and_kept": share(records, "taken"),
        "of_a_picture": cost_of(records, len(lab.prompts)),
    }
    claimed = claim == "reflection_delta"
    paper, target = (PAPER, TARGET) if claimed else (None, None)
    return row(claim, change.overall, each, seeds, COMMAND, target, beside, paper)


def share(records: Sequence[dict[str, Any]], key: str) -> float:
    values = [one for r in records for one in r[key]]
    return sum(values) / len(values)
