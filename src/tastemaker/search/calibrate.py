"""From which step on do previews foretell the end? The rank correlation, step by step, of a preview's score with that
of its own end, among the paths of one prompt.

It takes the place of a rule such as "clear after step 11 of 18" (arXiv 2501.13926, Table of the PARM data): measured
on a few prompts of one's own, for any generator and verifier, it says where PARM should begin to look and where the
rungs of halving should stand. Beside it: how unlike the previews of a prompt's paths are at each step, and how unlike
the branches of one path would be (why a step-wise search has nothing to choose from late).

Letters: P prompts, K paths of each, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..correlation import spearman
from ..errors import expect
from ..protocols import Generator, Plan, Reward
from ..records import Ledger, Prompt
from .walk import in_batches, walking


@dataclass(frozen=True)
class Config:
    """Calibration of the step from which previews foretell the end."""

    n: int = 8
    """K: paths of each prompt and seed, at least 3"""
    least: float = 0.5
    """the rank correlation from which on previews are said to foretell"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 3, "n of at least 3", self.n)
        expect(0 < self.least < 1, "least in (0, 1)", self.least)


@dataclass(frozen=True)
class Calibration:
    """Rows are steps, from after the first to the end."""

    progress: Tensor  # (T,) share of the steps taken
    correlation: Tensor  # (P, T) within each prompt; NaN where its ends, or previews, all score alike
    distance: Tensor  # (P, T) mean root-mean-square difference between the previews of two paths, in [0, 1]

    @property
    def mean(self) -> Tensor:
        """(T,) over the prompts that say anything; NaN where none does."""
        return self.correlation.nanmean(0)

    def foretells_from(self, least: float) -> float | None:
        """The share of the steps from which on the mean correlation stays at `least` or above; None: at no step
        before the end."""
        reached = (self.mean[:-1] >= least).tolist()
        last = max((k for k, holds in enumerate(reached) if not holds), default=-1)
        return float(self.progress[last + 1]) if last + 1 < len(reached) else None

    def as_dict(self) -> dict[str, Any]:
        columns = {"progress": self.progress, "correlation": self.mean, "distance": self.distance.mean(0)}
        return {name: [None if math.isnan(v) else round(v, 4) for v in c.tolist()] for name, c in columns.items()}


def calibrate(
    generator: Generator,
    verifier: Reward,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    config: Config,
    ledger: Ledger,
    plan: Plan | None = None,
    guidance: float | None = None,
) -> Calibration:
    """Every path of every prompt is looked at after every step. seeds: one per prompt."""
    scores, distances = [], []
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            state, paths = walk.start(own, numbers, config.n)
            columns, apart = [], []
            while not state.done.all():
                state = walk.advance(state, paths)
                images = walk.look(state, paths)
                columns.append(walk.score(images, state.condition.prompts).reshape(len(own), config.n))
                apart.append(mean_distance(images.unflatten(0, (len(own), config.n))))
            scores.append(torch.stack(columns, 1))
            distances.append(torch.stack(apart, 1))
        steps = walk.plan.steps
    table = torch.cat(scores)  # (P, T, K)
    found = torch.tensor([[rank_agreement(row, one[-1]) for row in one] for one in table])
    return Calibration(torch.arange(1, steps + 1, dtype=torch.float64) / steps, found, torch.cat(distances))


def rank_agreement(early: Tensor, end: Tensor) -> float:
    """Spearman's correlation of two rows (K,), pairs with a NaN left out; NaN where fewer than 3 are left, or one
    side does not vary."""
    known = ~(early.isnan() | end.isnan())
    return spearman(early[known].numpy(), end[known].numpy()) if known.sum() >= 3 else math.nan


def mean_distance(images: Tensor) -> Tensor:
    """(P, K, 3, H, W) -> (P,): the mean over the pairs of a prompt of the root of the mean squared difference."""
    flat = images.flatten(2)
    pairs = torch.triu_indices(flat.shape[1], flat.shape[1], 1)
    return torch.stack([(one[pairs[0]] - one[pairs[1]]).pow(2).mean(1).sqrt().mean() for one in flat])
