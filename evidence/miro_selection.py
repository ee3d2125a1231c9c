"""miro.py, third part: best-of-N. MIRO's best of 8 beside the baseline's best of 128, each by the reward that is
reported, and the curves of both. Letters: P prompts, n pictures of each, J judges.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.evaluation.intervals import paired_difference
from tastemaker.evaluation.of_n import counts
from tastemaker.records import Prompt
from tastemaker.world.grammar import evaluation_prompts

from .miro_judges import REWARDS, column
from .miro_lab import COMMAND, WORLD, Lab, loaded, seen
from .rows import row

KINDS = ("miro", "baseline")


def rows(lab: Lab) -> list[dict[str, Any]]:
    """The worst reward's difference in standard deviations of the baseline, and every reward's."""
    made = []
    for name in REWARDS:
        found, each = [], []
        for seed in lab.scale.seeds:
            ours, theirs = (drawn(lab, kind, seed)[..., column(name)] for kind in KINDS)
            deviation = float(theirs.std())
            pair = ours.amax(1).double().numpy() / deviation, theirs.amax(1).double().numpy() / deviation  # (P,) each
            found.append(pair)
            each.append(float((pair[0] - pair[1]).mean()))
        means = [np.mean(side, 0) for side in zip(*found)]
        value = paired_difference(*means, [p.text for p in prompts(lab)])
        made.append(row(f"bon8_minus_bon128_{name}", value, each, lab.scale.seeds, COMMAND, -0.05,
                        {"curves": curves(lab, name)}, unit="standard deviations of the baseline"))  # fmt: skip
    worst = min(made, key=lambda one: one["value"])
    return [{**worst, "claim": "bon8_minus_bon128"}, *made]


def prompts(lab: Lab) -> list[Prompt]:
    return evaluation_prompts(lab.scale.searched, seed=WORLD)


def drawn(lab: Lab, kind: str, seed: int) -> Tensor:
    """(P, n, J) scores; candidate k of prompt p has the same seed for every generator. Kept in half precision."""

    def make() -> dict[str, Tensor]:
        n, own = lab.scale.few if kind == "miro" else lab.scale.most, prompts(lab)
        generator = loaded(lab.trained(lab.run(kind, seed)))
        asked = [prompt for prompt in own for _ in range(n)]
        seeds = [9_000_000 + 1000 * p + k for p in range(len(own)) for k in range(n)]
        found = [lab.scores(images, said) for images, said in seen(generator, asked, seeds)]
        return {"scores": torch.cat(found).unflatten(0, (-1, n)).half()}

    return lab.once(f"candidates-{kind}-{seed}", make)["scores"].float()


def best_of(scores: Tensor, k: int) -> NDArray:
    """(P, n) -> (P,): the expected best of k of n pictures, over every choice of k."""
    n = scores.shape[1]
    chances = [math.comb(r, k - 1) / math.comb(n, k) for r in range(n)]  # that the r-th lowest is the best of k
    return (scores.sort(1).values.double() @ torch.tensor(chances, dtype=torch.float64)).numpy()


def curves(lab: Lab, name: str) -> dict[str, dict[str, float]]:
    """Means over seeds and prompts."""
    found = {}
    for kind in KINDS:
        scores = [drawn(lab, kind, seed)[..., column(name)] for seed in lab.scale.seeds]
        numbers = counts(scores[0].shape[1])
        found[kind] = {str(k): float(np.mean([best_of(one, k).mean() for one in scores])) for k in numbers}
    return found
