"""verification.py, second part: the paper's Table A on the world. Who is right how often, task by task, as the base,
with a verifier at N paths, after DPO, and with both; and tiny-flow, the diffusion model of the same world, beside it.

All rows of a seed draw from the same seeds, so differences are paired; intervals resample prompts and, within them,
the pictures of the seeds. A stack is compared with the better of its two parts by the mean over tasks. Where nobody
chooses, a prompt counts with the share of its N pictures that is right: one of them would say little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from .rows import row
from .verification_lab import COMMAND, Lab, measured, over_seeds, over_tasks, right
from .verification_search import FLOW, cost_of, parm_of, pool, step_by_step
from .verification_training import POLICIES

# claim -> (how its record is made, which of the record's pictures)
ROWS: dict[str, tuple[Any, str]] = {
    "base": (lambda lab, seed: pool(lab, "base", seed), "plain"),
    "orm_zero_shot": (lambda lab, seed: pool(lab, "base", seed), "orm_zero_shot"),
    "orm": (lambda lab, seed: pool(lab, "base", seed), "orm"),
    "prm_zero_shot": (lambda lab, seed: step_by_step(lab, "prm_zero_shot", seed), "kept"),
    "prm": (lambda lab, seed: step_by_step(lab, "prm", seed), "kept"),
    "parm": (lambda lab, seed: parm_of(lab, "base", seed), "kept"),
    "flow": (lambda lab, seed: pool(lab, FLOW, seed), "plain"),
    "flow_orm_zero_shot": (lambda lab, seed: pool(lab, FLOW, seed), "orm_zero_shot"),
    "flow_orm": (lambda lab, seed: pool(lab, FLOW, seed), "orm"),
}
for _name in POLICIES[1:]:
    ROWS |= {
        _name: (lambda lab, seed, p=_name: pool(lab, p, seed), "plain"),
        f"{_name}_orm_zero_shot": (lambda lab, seed, p=_name: pool(lab, p, seed), "orm_zero_shot"),
        f"{_name}_orm": (lambda lab, seed, p=_name: pool(lab, p, seed), "orm"),
        f"{_name}_parm": (lambda lab, seed, p=_name: parm_of(lab, p, seed), "kept"),
    }
STACKS = {
    f"{policy}_{verifier}": (policy, verifier)
    for policy in POLICIES[1:]
    for verifier in ("orm_zero_shot", "orm", "parm")
}
PAPER = {  # Show-o, GenEval (Table 3); it_dpo_guided is its "DPO with PARM as reward guidance"
    "base": 0.53, "orm_zero_shot": 0.61, "orm": 0.63, "prm_zero_shot": 0.53, "prm": 0.55, "parm": 0.67, "dpo": 0.62,
    "it_dpo": 0.65, "it_dpo_orm_zero_shot": 0.70, "it_dpo_orm": 0.72, "it_dpo_parm": 0.74, "it_dpo_guided": 0.69,
    "it_dpo_guided_parm": 0.77,
}  # fmt: skip
GAIN = {"parm": 0.14, "dpo": 0.09, "it_dpo": 0.12, "it_dpo_parm": 0.21, "it_dpo_guided_parm": 0.24}  # over the base


def run_all(lab: Lab, seed: int) -> None:
    for make, _ in ROWS.values():
        make(lab, seed)


def rows(lab: Lab) -> list[dict[str, Any]]:
    over_seeds(lab, run_all)
    found = {name: [make(lab, seed) for seed in lab.scale.seeds] for name, (make, _) in ROWS.items()}
    kept = {name: right(found[name], key) for name, (_, key) in ROWS.items()}  # (S P,) each
    made = [score_row(lab, name, kept[name], found[name]) for name in ROWS]
    made += [difference_row(lab, name, "base", kept, f"{name}_minus_base", GAIN.get(name)) for name in list(ROWS)[1:]]
    for stack, parts in STACKS.items():
        best = max(parts, key=lambda part: over_tasks(lab.every_prompt, kept[part]))
        made.append(difference_row(lab, stack, best, kept, f"{stack}_minus_best_single", 0.0))
    return made


def overall_of_seeds(lab: Lab, values: NDArray) -> list[float]:
    """(S P,) -> the mean over tasks of each seed."""
    return [over_tasks(lab.prompts, part) for part in values.reshape(len(lab.scale.seeds), -1)]


def score_row(lab: Lab, name: str, values: NDArray, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    (value, tasks), verifier = measured(lab.every_prompt, values), ROWS[name][1]
    searched = verifier not in ("plain", "orm_zero_shot")  # whose ledger is that of another choice
    beside: dict[str, Any] = {
        "tasks": tasks,
        "rank_accuracy": [one.get("rank_accuracy", {}).get(verifier) for one in records],
        "of_a_picture": cost_of(records, len(lab.prompts)) if searched else None,
    }
    if verifier == "plain":
        beside["training"] = [one["training"] for one in records]
    each = overall_of_seeds(lab, values)
    return row(name, value, each, lab.scale.seeds, COMMAND, None, beside, PAPER.get(name))


def difference_row(
    lab: Lab, name: str, other: str, kept: Mapping[str, NDArray], claim: str, target: float | None
) -> dict[str, Any]:
    """kept: (S P,) by name."""
    value, tasks = measured(lab.every_prompt, kept[name] - kept[other])
    pairs = zip(overall_of_seeds(lab, kept[name]), overall_of_seeds(lab, kept[other]))
    paper = PAPER[name] - PAPER[other] if name in PAPER and other in PAPER else None
    beside = {"compared_with": other, "tasks": tasks}
    each = [a - b for a, b in pairs]
    return row(claim, value, each, lab.scale.seeds, COMMAND, target, beside, paper and round(paper, 2))
