"""miro.py, fourth part, exploratory, one seed: what is asked for and what is drawn. One reward's target goes from 0
to 1 while the others keep the model's own; and a front of targets, searched on some prompts and measured on others.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from tastemaker.evaluation.intervals import bootstrap_mean, paired_difference
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.targets import search_targets

from .miro_judges import JUDGED, REWARDS, column
from .miro_lab import COMMAND, Lab
from .records import recorded
from .rows import row

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # every other one of the paper's
EACH = 2  # pictures of a prompt
COUNT = 12  # targets on the front of the training pictures that are tried


def rows(lab: Lab) -> list[dict[str, Any]]:
    return [*(swept(lab, name) for name in REWARDS), searched(lab)]


def swept(lab: Lab, name: str) -> dict[str, Any]:
    """The reward at target 1 less at target 0, in its standard deviation at 0.5; beside it every judge at every
    target."""
    levels = LEVELS if lab.scale.looks > 3 else (0.0, 0.5, 1.0)
    scores = {level: drawn(lab, name, level) for level in levels}
    ends = [scores[level][:, column(name)] / scores[0.5][:, column(name)].std() for level in (1.0, 0.0)]
    means = {str(k): {n: float(v[:, column(n)].nanmean()) for n in JUDGED} for k, v in scores.items()}
    value = paired_difference(*ends, [p.text for p in lab.repeated(EACH)])
    return row(f"target_sweep_{name}", value, [value.value], [0], COMMAND, None, {"means": means},
               unit="standard deviations, target 1 less target 0")  # fmt: skip


def drawn(lab: Lab, name: str, level: float) -> Tensor:
    """(P EACH, J) with that target for one reward."""

    def make() -> dict[str, Tensor]:
        generator: Any = load_generator(str(lab.trained(lab.run("miro", 0))))
        target = generator.positive.clone()
        target[column(name)] = level
        return {"scores": lab.judged(generator.asking(target, generator.negative), EACH)}

    return lab.once(f"sweep-{name}-{level}", make)["scores"]


def searched(lab: Lab) -> dict[str, Any]:
    """How many of the kept targets are on the front of the prompts that were not searched on."""

    def make() -> dict[str, Any]:
        model, out = str(lab.trained(lab.run("miro", 0))), lab.cache / "targets"
        words, count = [p.text for p in lab.prompts], COUNT if lab.scale.looks > 3 else 2
        search_targets(model, list(REWARDS), words, None, count, out)
        return {"front": json.loads((out / "front.json").read_text())["front"]}

    found = recorded(lab.partial / "miro-targets.json", "targets", lab.told, make)["front"]
    on = torch.tensor([float(one["on_front"]) for one in found])
    value = bootstrap_mean(on.repeat(2) if len(on) == 1 else on, list(range(max(2, len(on)))))
    return row("targets_still_on_front", value, [value.value], [0], COMMAND, None, {"front": found})
