"""Dataset filtering: fine-tune on the pictures of a scored set whose reward is high, the simplest use of a reward
(a baseline of ImageReward, Xu et al. 2023, arXiv 2304.05977, Appendix E).

    L = E[ L_pre(x, c) ]   over the pictures x whose reward is in the top share for their prompt c

Within a prompt that has several pictures its own best are kept; pictures that are alone with their words compete with
each other. The paper trains on 20,000 pictures of the pretraining data, the 10,000 best and the 10,000 worst, these
with "Weird image." before their words; here the worst are left out, and `pretraining_weight` mixes in the other data.
Needs of the generator: `codec`, `draw`, `loss`. Needs no gradient of the reward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..randomness import mix
from ..ranks import own
from ..records import StepRecord
from .anchor import anchored, captioned_data, captioned_loss
from .optimise import TrainingState
from .pretrain import Captioned, draw_seeds
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """Dataset filtering: which pictures are kept, and how long they are trained on."""

    prompts: str = ""
    """a prompt file for the looks on the way; empty: the embedded world"""
    steps: int = 200
    """optimiser steps"""
    batch_size: int = 32
    """kept pictures a step; as many of the pretraining data where it counts"""
    pictures: int = 2000
    """how many of the embedded world are scored; of your own data all are"""
    share: float = 0.5
    """which part is kept, in (0, 1]: of each prompt's pictures, rounded up"""
    pretraining_weight: float = 0.0
    """of the loss on the data before it was filtered; the paper mixes them evenly, 1"""
    seed: int = 0
    """of the order of the pictures and the noise"""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.pictures >= 1, "pictures of at least 1", self.pictures)
        expect(0 < self.share <= 1, "a share in (0, 1]", self.share)


def together(sets: Tensor) -> Tensor:
    """(N,) int64 -> (N,) int64: pictures that are alone in their set share the set -1."""
    _, place, count = sets.unique(return_inverse=True, return_counts=True)
    return torch.where(count[place] > 1, sets, -1)


def top_share(scores: Tensor, sets: Tensor, share: float) -> Tensor:
    """(N,), (N,) int64 -> rows (n,) int64, rising: of every set its ceil(share size) best, the first of equals.

    A picture whose score is NaN is never kept, and does not count. Raises TastemakerError where nothing is left.
    """
    kept = []
    for one in sets.unique():
        rows = ((sets == one) & ~scores.isnan()).nonzero()[:, 0]
        best = scores[rows].argsort(descending=True, stable=True)
        kept.append(rows[best[: math.ceil(share * len(rows) - 1e-9)]])
    found = torch.cat(kept).sort().values if kept else torch.empty(0, dtype=torch.int64)
    if not len(found):
        raise TastemakerError(f"none of {len(scores)} pictures has a score: nothing to keep")
    return found


def train(
    generator: Any,
    kept: Captioned,
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`.

    kept: batches of the pictures that passed. batches: those of the data before, or None.
    """
    generator.network.eval()
    chosen = kept.from_step(state.step, config.workers)
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        images, captions = next(chosen)
        seeds = own(draw_seeds(mix(config.seed, 1), state.step, config.batch_size))
        loss = captioned_loss(generator, images, captions, seeds).mean()
        figures = {"kept_loss": float(loss.detach())}
        loss, more = anchored(loss, generator, data, config.pretraining_weight, seeds)
        figures |= more | state.update(loss)
        yield StepRecord(state.step, figures)
