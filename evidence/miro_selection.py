"""miro.py, second part: best-of-N. MIRO's best of 8 beside the baseline's best of 128, each by the reward that is
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
from tastemaker.sampling import sample_batches, score
from tastemaker.workflows.load import load_generator

from .miro_lab import COMMAND, REWARDS, Lab, column
from .rows import row
from .simulated_pool import stored

FEW = 8


def rows(lab: Lab) -> list[dict[str, Any]]:
    """The worst reward's difference in standard deviations of the baseline, and every reward's."""
    most, few = lab.scale.most, min(FEW, lab.scale.most)
    made = []
    for name in REWARDS:
        found, each = {}, []
        for seed in lab.scale.seeds:
            ours, theirs = (drawn(lab, f"{kind}-{seed}", n)[..., column(name)] for kind, n in kinds(few, most))
            deviation = float(theirs.std())
            pair = best_of(ours, few) / deviation, best_of(theirs, most) / deviation  # (P,) each
            found[seed], difference = pair, (pair[0] - pair[1]).mean()
            each.append(float(difference))
        means = [np.mean([found[seed][k] for seed in found], 0) for k in (0, 1)]
        value = paired_difference(*means, [p.text for p in lab.prompts])
        beside = {"curves": curves(lab, name, few, most)}
        made.append(row(f"bon8_minus_bon128_{name}", value, each, lab.scale.seeds, COMMAND, -0.05, beside,
                        unit="standard deviations of the baseline"))  # fmt: skip
    worst = min(made, key=lambda one: one["value"])
    return [{**worst, "claim": "bon8_minus_bon128"}, *made]


def kinds(few: int, most: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("miro", few), ("baseline", most)


def drawn(lab: Lab, name: str, n: int) -> Tensor:
    """(P, n, J) scores; candidate k of prompt p has the same seed for every generator."""
    kind, _, seed = name.rpartition("-")
    lab.trained(lab.run(kind, int(seed)))

    def make() -> dict[str, Tensor]:
        generator: Any = load_generator(str(lab.cache / name))
        found = []
        for p, prompt in enumerate(lab.prompts):
            seeds = range(9_000_000 + 1000 * p, 9_000_000 + 1000 * p + n)
            images = torch.cat(list(sample_batches(generator, [prompt] * n, seeds, batch=32)))
            found.append(score(lab.judges, images, [prompt] * n))
        return {"scores": torch.stack(found)}

    return stored(lab.cache / f"candidates-{name}", make)["scores"]


def best_of(scores: Tensor, k: int) -> NDArray:
    """(P, n) -> (P,): the expected best of k of n pictures, over every choice of k."""
    n = scores.shape[1]
    chances = [math.comb(r, k - 1) / math.comb(n, k) for r in range(n)]  # that the r-th lowest is the best of k
    return (scores.sort(1).values.double() @ torch.tensor(chances, dtype=torch.float64)).numpy()


def curves(lab: Lab, name: str, few: int, most: int) -> dict[str, Any]:
    found = {}
    for kind, n in kinds(few, most):
        scores = [drawn(lab, f"{kind}-{seed}", n)[..., column(name)] for seed in lab.scale.seeds]
        found[kind] = {str(k): float(np.mean([best_of(one, k).mean() for one in scores])) for k in counts(n)}
    return found
