"""Pretraining of a text-to-image generator on captioned pictures: conditional flow matching.

Lipman et al. 2023 (arXiv 2210.02747), Eq. 14, with the loss that the generator itself gives (`generator.loss`: for
tiny-flow the velocity loss of an x-prediction, arXiv 2511.13720). Captions are dropped now and then, so that the
null condition is learned and guidance is possible (arXiv 2207.12598). Needs of the generator: `codec`, `draw`,
`loss`, `caption_condition`. Needs no reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Condition, Prompt
from ..randomness import mix, stream
from ..ranks import own, rank, world
from ..records import StepRecord
from .optimise import OptimiserConfig, TrainingState


@dataclass(frozen=True)
class Config:
    """Pretraining: how long, how large the batches, what to drop."""

    steps: int = 10_000
    """optimiser steps"""
    batch_size: int = 32
    """pictures a step"""
    caption_dropout: float = 0.1
    """share of captions replaced by the null condition, in [0, 1]"""
    seed: int = 0
    """of the order of the data, the noise and the first weights"""
    bfloat16: bool = False
    """run the network in bfloat16 (worth it on a GPU); noise, losses and weights stay float32"""
    compile: bool = True
    """compile the network first (a minute, then up to twice as fast)"""
    size: int = 64
    """side of the pictures, pixels"""
    scale: int = 2
    """pixels of the picture for one that the flow draws, a side; a decoder adds the details; 1: no decoder"""
    patch: int = 4
    """side of a patch, in pixels of the flow, even; half of it costs four times the time"""
    width: int = 128
    """of the network; a multiple of 32"""
    depth: int = 4
    """transformer blocks"""
    words: int = 12
    """the longest caption that is read"""
    captions: str = ""
    """how a CSV's columns make a caption, such as "{label}, {tags}"; empty: its caption column"""
    held_out: float = 0.0
    """share of your own pictures, whole labels at a time, that is kept from training, in [0, 1)"""
    sample_every: int = 1000
    """steps between two sample grids"""
    workers: int = 0
    """processes that prepare pictures; 0: the training process does"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(2e-3, warmup_steps=100, ema_decay=0.999, muon_scale=5.0)
    )

    def __post_init__(self) -> None:
        expect(self.steps >= 1, "steps of at least 1", self.steps)
        expect(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        expect(0 <= self.caption_dropout <= 1, "caption_dropout in [0, 1]", self.caption_dropout)
        expect(self.width >= 32 and self.width % 32 == 0, "a width that is a multiple of 32", self.width)
        expect(self.depth >= 1 and self.words >= 1, "depth and words of at least 1", f"{self.depth}, {self.words}")
        side = self.patch * self.scale
        expect(
            side >= 1 and self.size >= side and self.size % side == 0,
            f"a size that is a multiple of {side}",
            self.size,
        )
        expect(self.sample_every >= 1, "sample_every of at least 1", self.sample_every)


class Captioned(Protocol):
    """Batches of captioned pictures as a pure function of the step: see `data.batches.Batches`."""

    def from_step(self, step: int, workers: int = 0) -> Iterator[tuple[Tensor, list[Prompt]]]: ...


def flow_matching(generator: Any, images: Tensor, condition: Condition, seeds: Tensor) -> Tensor:
    """The loss of each picture, (B,). images (B, 3, H, W) in [0, 1]."""
    x1 = generator.codec.encode(images, seeds)
    return generator.loss(x1, condition, generator.draw(x1, seeds))


def flow_and_codec(generator: Any, images: Tensor, condition: Condition, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """The flow's loss (B,) and, with the same draw, the decoder's on every fourth picture of the whole batch: it is
    soon learned."""
    x1, first = generator.codec.encode(images, seeds), -rank() * len(images) % 4
    draw = generator.draw(x1, seeds)
    if first < len(images):
        codec = generator.codec_loss(images[first::4], draw[first::4])
    else:  # this process has none of them; one counts for nothing, since all have to call a sharded decoder
        codec = generator.codec_loss(images[:1], draw[:1]) * 0
    return generator.loss(x1, condition, draw), codec


def codec_mean(codec: Tensor, count: int) -> Tensor:
    """A scalar whose mean over the processes is the decoder's mean loss on every fourth of `count` pictures, of which
    some processes may have more than others."""
    return codec.sum() * world() / -(-count // 4)


def draw_seeds(seed: int, step: int, count: int) -> Tensor:
    """(B,) int64: the seed of each picture's time and noise at this step."""
    return torch.tensor([mix(seed, step, k) for k in range(count)])


def caption_drop(seed: int, step: int, count: int, share: float) -> Tensor:
    """(B,) bool."""
    return torch.from_numpy(stream(seed, step=step, purpose="caption dropout").random(count) < share)


def train(generator: Any, batches: Captioned, config: Config, state: TrainingState) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`."""
    device = next(generator.network.parameters()).device
    generator.network.train()
    if config.compile:
        generator.network.compile()
    data = batches.from_step(state.step, config.workers)
    while state.step < config.steps:
        step = state.step
        images, captions = next(data)
        count = len(images) * world()
        seeds = own(draw_seeds(config.seed, step, count))
        drop = own(caption_drop(config.seed, step, count, config.caption_dropout))
        condition = generator.caption_condition(captions, drop)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            loss, codec = flow_and_codec(generator, images.to(device, non_blocking=True), condition, seeds)
        codec_loss = codec_mean(codec, count)
        figures = state.update(loss.mean() + codec_loss)
        yield StepRecord(state.step, figures | {"codec_loss": float(codec_loss.detach())})
