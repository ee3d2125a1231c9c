"""Training with the rewards of every picture beside its caption (MIRO, Dufour et al. 2025, arXiv 2510.25897).

    L = E[ w |v(x_t, t, c, s) - (x_1 - x_0)|^2 ]

s are levels in [0, 1], one a reward: where in the training data its score lies, by bins (data/bins.py). A level is
dropped now and then, each alone or all together, and a score that is missing is dropped always: the network has a
token for it. So the network answers for any part of s, and for none. w is 1 for MIRO; with no rewards to condition on
the same loop is pretraining, on the best pictures alone (hard filtering) or with w rising with the scores
(reward-weighted loss): the baselines. In the paper all rewards are always there, and captions are never dropped.

Needs of the generator: `codec`, `draw`, `loss`, `caption_condition` with levels. Letters: V kinds of captions,
N pictures, R rewards, B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.batches import Batches
from ..errors import expect
from ..protocols import Condition, Prompt
from ..randomness import stream
from ..ranks import own, world
from ..records import StepRecord
from .optimise import OptimiserConfig, TrainingState
from .pretrain import caption_drop, codec_mean, draw_seeds, flow_and_codec, flow_matching
from .reward_weighted import exponential_weights
from .sft import top_share


@dataclass(frozen=True)
class Config:
    """Reward-conditioned training: from what, on which scores, what is dropped, how long."""

    model: str = "tiny-flow"
    """what it begins from: a tiny generator, or a run of this command; none: from nothing, of the sizes below"""
    rewards: str = "preference,alignment,sharpness,harmony"
    """the scores of every picture, with commas: rewards of `tastemaker models`, or scored columns of --data"""
    condition_on: str = "all"
    """which of them the network is told, with commas; all; or none, the baseline"""
    keep_share: float = 1.0
    """hard filtering: which part of the pictures is trained on, in (0, 1], the best by mean level of all rewards"""
    weight_temperature: float = 0.0
    """above 0: each picture's loss counts as exp(mean level / this), over its mean; 0: all count alike"""
    synthetic: float = 0.0
    """share of synthetic captions, in [0, 1]; in the embedded world these say what the picture shows"""
    synthetic_field: str = "synthetic"
    """where --data has synthetic captions: the field whose scores are called REWARD@FIELD"""
    scores: str = ""
    """the folder that `tastemaker score` wrote for --data; empty: beside the shards"""
    pictures: int = 24_000
    """how many of the embedded world are drawn and scored; of your own all are taken"""
    world_seed: int = 0
    """of the embedded world's pictures"""
    cache: str = ""
    """where the scored pictures are kept, for several runs; empty: in the run"""
    bins: int = 64
    """levels of a reward"""
    bin_rule: Literal["equal_mass", "equal_width"] = "equal_mass"
    """equal_mass: a level is the share of pictures below; equal_width: equal steps of the score"""
    steps: int = 6000
    """optimiser steps"""
    batch_size: int = 32
    """pictures a step"""
    caption_dropout: float = 0.1
    """share of captions replaced by the null condition, in [0, 1]"""
    reward_dropout: float = 0.1
    """share of levels that are dropped, each by itself, in [0, 1]"""
    all_rewards_dropout: float = 0.1
    """share of pictures whose levels are all dropped, in [0, 1]"""
    guidance: float = 3.0
    """of the saved model: 1 + w in v+ + w (v+ - v-)"""
    seed: int = 0
    """of the order of the data, the noise, what is dropped and the new weights"""
    bfloat16: bool = False
    """run the network in bfloat16 (worth it on a GPU); noise, losses and weights stay float32"""
    compile: bool = True
    """compile the network first (a minute, then up to twice as fast)"""
    size: int = 64
    """side of the pictures, pixels; of a model that is begun from its own"""
    scale: int = 2
    """from nothing: pixels of the picture for one that the flow draws, a side"""
    patch: int = 4
    """from nothing: side of a patch, in pixels of the flow, even"""
    width: int = 128
    """from nothing: of the network; a multiple of 32"""
    depth: int = 4
    """from nothing: transformer blocks"""
    words: int = 12
    """from nothing: the longest caption that is read"""
    sample_every: int = 1000
    """steps between two sample grids"""
    workers: int = 0
    """processes that read pictures; 0: the training process does"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(1e-3, warmup_steps=100, ema_decay=0.999, muon_scale=5.0)
    )

    def __post_init__(self) -> None:
        expect(self.steps >= 1 and self.batch_size >= 1, "steps and batch_size of at least 1", self.steps)
        for name in ("synthetic", "caption_dropout", "reward_dropout", "all_rewards_dropout"):
            expect(0 <= getattr(self, name) <= 1, f"{name} in [0, 1]", getattr(self, name))
        expect(0 < self.keep_share <= 1, "a keep_share in (0, 1]", self.keep_share)
        expect(self.weight_temperature >= 0, "a weight_temperature of at least 0", self.weight_temperature)
        expect(2 <= self.bins <= 4096, "bins from 2 to 4096", self.bins)
        expect(self.pictures >= 2, "pictures of at least 2", self.pictures)
        expect(self.sample_every >= 1, "sample_every of at least 1", self.sample_every)


@dataclass(frozen=True)
class Labelled:
    """What a training sees. batches: pictures by step, with the rows they are; captions: V of N; levels (V, N, R),
    R of them that the network is told; weights (V, N) of the loss."""

    batches: Batches
    captions: Sequence[Sequence[str]]
    levels: Tensor
    weights: Tensor


def mean_level(levels: Tensor) -> Tensor:
    """(V, N, R) -> (V, N): the mean over the rewards that are there, NaN where none is."""
    return levels.nanmean(2)


def filtered_rows(levels: Tensor, share: float) -> Tensor:
    """(V, N, R) -> rows (n,) int64, rising: the ceil(share N) pictures of the highest mean level, over rewards and
    kinds of captions. Raises TastemakerError where no picture has a score."""
    means = mean_level(levels).nanmean(0)
    return top_share(means, torch.zeros(len(means), dtype=torch.int64), share)


def loss_weights(levels: Tensor, temperature: float) -> Tensor:
    """(V, N, R) -> (V, N): exp(mean level / temperature) over its mean, so that weights have mean 1; temperature 0:
    1. A picture without a score has weight 0. Raises TastemakerError where no picture has one."""
    means = mean_level(levels)
    if temperature == 0:
        return torch.ones_like(means)
    return exponential_weights(means.flatten(), temperature).reshape(means.shape)


def reward_drop(seed: int, step: int, count: int, rewards: int, each: float, together: float) -> Tensor:
    """(B, R) bool: which levels a step drops."""
    draws = stream(seed, step=step, purpose="reward dropout").random((count, rewards + 1))
    return torch.from_numpy((draws[:, :-1] < each) | (draws[:, -1:] < together))


def without_anything(seed: int, step: int, count: int) -> Tensor:
    """(B,) bool: which rows, should their caption be dropped, lose all levels with it. Half of them: guidance by the
    caption alone needs a condition that asks nothing, and guidance by levels needs levels without a caption."""
    return torch.from_numpy(stream(seed, step=step, purpose="null condition").random(count) < 0.5)


def caption_kind(seed: int, step: int, count: int, share: float) -> Tensor:
    """(B,) int64: 1 where a step takes the synthetic caption."""
    return torch.from_numpy(stream(seed, step=step, purpose="caption kind").random(count) < share).long()


def objective(losses: Tensor, weights: Tensor) -> Tensor:
    """w L, (B,)."""
    return weights.to(losses) * losses


def train(generator: Any, data: Labelled, config: Config, state: TrainingState) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`. A decoder that may move is trained as in pretraining."""
    device = next(generator.network.parameters()).device
    draws_details = any(p.requires_grad for p in generator.decoder.parameters())
    generator.network.train()
    if config.compile:
        generator.network.compile()
    pictures = data.batches.from_step(state.step, config.workers)
    while state.step < config.steps:
        images, _ = next(pictures)
        count = len(images) * world()
        seeds = own(draw_seeds(config.seed, state.step, count))
        condition, weights = conditions(generator, data, config, state.step, count)
        figures: dict[str, float] = {}
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            images = images.to(device, non_blocking=True)
            if draws_details:
                losses, codec = flow_and_codec(generator, images, condition, seeds)
                extra = codec_mean(codec, count)
                figures["codec_loss"] = float(extra.detach())
            else:
                losses, extra = flow_matching(generator, images, condition, seeds), torch.zeros((), device=device)
        figures = state.update(objective(losses, weights).mean() + extra) | figures
        yield StepRecord(state.step, figures)


def conditions(generator: Any, data: Labelled, config: Config, step: int, count: int) -> tuple[Condition, Tensor]:
    """What this process's rows of a step are told, and the weights (B,) of their losses."""
    rows = torch.as_tensor(data.batches.indices(step))
    kinds = own(caption_kind(config.seed, step, count, config.synthetic))
    kinds = kinds.clamp_max(len(data.captions) - 1)
    captions = [Prompt(data.captions[v][i]) for v, i in zip(kinds.tolist(), rows.tolist())]
    drop = own(caption_drop(config.seed, step, count, config.caption_dropout))
    levels, weights = data.levels[kinds, rows], data.weights[kinds, rows]
    if not levels.shape[1]:
        return generator.caption_condition(captions, drop), weights
    shares = config.reward_dropout, config.all_rewards_dropout
    left_out = own(reward_drop(config.seed, step, count, levels.shape[1], *shares))
    bare = drop & own(without_anything(config.seed, step, count))
    levels = torch.where(left_out | bare[:, None], float("nan"), levels)
    return generator.caption_condition(captions, drop, levels), weights
