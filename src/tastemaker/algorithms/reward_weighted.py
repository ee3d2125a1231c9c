"""Reward-weighted regression: the generator's own pictures, each counting as its reward says.

    L = E_own[ w(r) L_pre(x, c) ] + L_pre on the pretraining data

Peters & Schaal 2007 (reward-weighted regression) with w = exp(r / beta), normalised; for text to image Lee et al.
2023 (arXiv 2302.12192) with w the reward itself, which ImageReward's baseline brings to [0, 1] (arXiv 2304.05977,
Appendix E: ten pictures of each prompt, as many pictures of the pretraining data, beta 0.5). Both maps stand here;
`train reward-weighted` takes the exponential one, with rewards in standard deviations and weights that have mean 1
within each prompt.
Needs of the generator: `codec`, `draw`, `loss`. Needs no gradient of the reward. Letters: N pictures of the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import ranks
from ..errors import TastemakerError, expect
from ..randomness import mix
from ..records import Prompt, StepRecord
from .anchor import anchored, captioned_data, captioned_loss
from .optimise import TrainingState
from .pretrain import Captioned, draw_seeds
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """Reward-weighted regression: how many own pictures, how sharply weighed, how long."""

    steps: int = 200
    """optimiser steps"""
    batch_size: int = 32
    """own pictures a step; as many captioned pictures for the pretraining loss"""
    drawn_prompts: int = 200
    """prompts that are drawn before the training"""
    per_prompt: int = 10
    """pictures of each"""
    beta: float = 0.5
    """how far apart two rewards, in standard deviations, are for their weights to differ e times; less is sharper"""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(
            self.drawn_prompts >= 1 and self.per_prompt >= 1,
            "drawn_prompts and per_prompt of at least 1",
            f"{self.drawn_prompts}, {self.per_prompt}",
        )
        expect(self.beta > 0, "a beta above 0", self.beta)


class Indexed(Protocol):
    """Batches that also say which rows of their set a step takes: see `data.batches.Batches`."""

    def from_step(self, step: int, workers: int = 0) -> Iterator[tuple[Tensor, list[Prompt]]]: ...
    def indices(self, step: int) -> Sequence[int]: ...


def exponential_weights(rewards: Tensor, beta: float, sets: Tensor | None = None) -> Tensor:
    """(N,) -> (N,): exp(r / beta) over its mean in each set, so that the weights of a set have mean 1.

    sets (N,) int64: equal where two pictures are weighed against each other; None: all are. A picture whose reward is
    NaN has weight 0 and does not count in the mean. Raises TastemakerError where no picture has a reward.
    """
    sets = torch.zeros(len(rewards), dtype=torch.int64) if sets is None else sets
    known = ~rewards.isnan()
    if not known.any():
        raise TastemakerError(f"none of {len(rewards)} pictures has a reward: nothing to weigh")
    weights = torch.zeros_like(rewards)
    for one in sets[known].unique():
        rows = (sets == one) & known
        weights[rows] = torch.softmax(rewards[rows] / beta, 0) * rows.sum()
    return weights


def minmax_weights(rewards: Tensor) -> Tensor:
    """(N,) -> (N,): (r - min) / (max - min), of Lee et al. and ImageReward's baseline; NaN has weight 0, and all have
    weight 1 where they are equal. Raises TastemakerError where no picture has a reward."""
    known = rewards[~rewards.isnan()]
    if not len(known):
        raise TastemakerError(f"none of {len(rewards)} pictures has a reward: nothing to weigh")
    low, high = known.min(), known.max()
    return torch.where(high > low, (rewards - low) / (high - low).clamp_min(1e-30), rewards * 0 + 1).nan_to_num()


def objective(losses: Tensor, weights: Tensor) -> Tensor:
    """w L, (B,)."""
    return weights.to(losses) * losses


def train(
    generator: Any,
    own: Indexed,
    weights: Tensor,
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`.

    own: batches of the generator's pictures; weights (N,): of each picture of their set. batches: captioned pictures
    for the pretraining loss, or None.
    """
    generator.network.eval()
    drawn = own.from_step(state.step, config.workers)
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        weight = weights[torch.as_tensor(own.indices(state.step))]
        images, captions = next(drawn)
        seeds = ranks.own(draw_seeds(mix(config.seed, 1), state.step, config.batch_size))
        loss = objective(captioned_loss(generator, images, captions, seeds), weight).mean()
        counted = ranks.gather(weight)
        effective = counted.sum() ** 2 / counted.pow(2).sum().clamp_min(1e-30)  # Kish's effective sample size
        figures = {"weighted_loss": float(loss.detach()), "effective_pictures": float(effective)}
        loss, more = anchored(loss, generator, data, config.pretraining_weight, seeds)
        figures |= more | state.update(loss)
        yield StepRecord(state.step, figures)
