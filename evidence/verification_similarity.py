"""verification.py, of the fourth part: why a step-wise search gains nothing. How unlike are the previews that it
chooses from, step by step, and how well do they foretell the end?

Branches of one path part at a step and are looked at after it; beside them stand paths that began apart. Distances
are cosine distances of EfficientNet-lite0's features, in which no judge sees; what an early preview's score says of
the end is Spearman's correlation within a prompt (search/calibrate.py). One seed. Letters: P prompts, K paths of
each, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tastemaker.devices import place
from tastemaker.encoders.protocol import Encoder, extract
from tastemaker.encoders.table import load_encoder
from tastemaker.evaluation.diversity import per_prompt
from tastemaker.evaluation.intervals import bootstrap_mean
from tastemaker.protocols import State
from tastemaker.records import Ledger, Prompt
from tastemaker.search import calibrate
from tastemaker.search.walk import candidates

from .rows import row
from .verification_lab import COMMAND, Lab
from .verification_search import Answer
from .verification_training import judge_of

SPACE = "efficientnet-lite0"


def rows(lab: Lab) -> list[dict[str, Any]]:
    return [similarity_row(lab, similarity(lab, seed), seed) for seed in lab.seeds_of_ablations]


@cache
def space() -> Encoder:
    return place(load_encoder(SPACE))


def few(lab: Lab) -> list[Prompt]:
    """Some of each task."""
    tasks = [(p.spec or {})["tag"] for p in lab.prompts]
    return [p for k, p in enumerate(lab.prompts) if tasks[:k].count(tasks[k]) < lab.scale.similar_per_task]


def similarity(lab: Lab, seed: int) -> dict[str, Any]:
    """`branches` and `paths`, T lists (P,) of mean distances; `foretold`: judge -> (T,) rank correlations."""
    return lab.once(f"similarity-{seed}", lambda: {**distances(lab, seed), "foretold": foretold(lab, seed)})


def distances(lab: Lab, seed: int) -> dict[str, Any]:
    """Of K branches of the plain path after each step, and of K paths from the start."""
    generator, prompts, k = lab.generator(), few(lab), lab.scale.similar
    seeds = torch.tensor(lab.picture_seeds(seed)[: len(prompts)])
    state = candidates(generator, prompts, seeds, k, generator.plan, generator.guidance)
    plain, found = state[torch.arange(0, len(state), k)], {"branches": [], "paths": []}  # type: ignore[var-annotated]
    while not state.done.all():
        branches = generator.advance(plain.fork(k))
        state, plain = generator.advance(state), generator.advance(plain)
        for name, own in (("branches", branches), ("paths", state)):
            found[name].append(apart(generator, own, k).tolist())
    return found


def apart(generator: Any, state: State, k: int) -> np.ndarray:
    """(P K,) previews -> (P,) mean distance between two of a prompt."""
    with torch.no_grad():
        images: Tensor = generator.preview(state).clamp(0, 1).float()
    return per_prompt(extract(space(), images.split(64)).numpy(), np.arange(len(state)) // k)


def foretold(lab: Lab, seed: int) -> dict[str, Any]:
    """By the ORM's score, by PARM's potential and by the PRM's: mean rank correlation with the end, each with its own
    answer there."""
    asked = {"orm": judge_of(lab, "orm", seed)}
    asked |= {name: Answer(judge_of(lab, name, seed), "potential") for name in ("parm", "prm")}
    prompts, config = few(lab), calibrate.Config(max(3, lab.scale.similar), batch_size=lab.at_once)
    seeds = lab.picture_seeds(seed)[: len(prompts)]
    found = {}
    for name, judge in asked.items():
        one = calibrate.calibrate(lab.generator(), judge, prompts, seeds, config, Ledger())
        found[name] = one.as_dict()["correlation"]
    return found


def similarity_row(lab: Lab, found: dict[str, Any], seed: int) -> dict[str, Any]:
    """How unlike the branches are that part in the last third of the steps, over how unlike paths' ends are."""
    branches, paths = np.array(found["branches"]), np.array(found["paths"])  # (T, P)
    late = branches[len(branches) * 2 // 3 :].mean(0) / paths[-1]
    beside = {"space": SPACE, "prompts": len(late), "paths_of_each": lab.scale.similar}
    beside |= {"branches": means(branches), "paths": means(paths), "foretold": found["foretold"]}
    value = bootstrap_mean(late, np.arange(len(late)))
    return row("prm_late_branches_over_paths", value, [value.value], (seed,), COMMAND, None, beside,
               unit="ratio of cosine distances")  # fmt: skip


def means(values: Sequence[Any] | np.ndarray) -> list[float]:
    """(T, P) -> (T,)."""
    return [round(float(one), 4) for one in np.mean(values, 1)]
