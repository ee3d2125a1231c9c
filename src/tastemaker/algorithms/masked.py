"""Pretraining of a masked-token generator on captioned pictures (MaskGIT, Chang et al. 2022, arXiv 2202.04200).

    L = E[ -(1 / n) sum_i log p(x_i | x_known, c) ]   over the n masked positions; n / N = cos(pi u / 2), u in [0, 1)

x are the tokens that a frozen tokenizer makes of a picture. Captions are dropped now and then, so that the null
condition is learned and guidance is possible (arXiv 2207.12598). Needs of the generator: `codec`, `draw`, `loss`,
`caption_condition`. Needs no reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import expect
from ..ranks import own, world
from ..records import StepRecord
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, caption_drop, draw_seeds, flow_matching


@dataclass(frozen=True)
class Config:
    """Masked-token pretraining: how long, how large the batches, what to drop."""

    tokenizer: str = ""
    """the run of `train tokenizer`, or its file; empty: the one in the shipped tiny-masked"""
    steps: int = 20_000
    """optimiser steps"""
    batch_size: int = 32
    """pictures a step"""
    caption_dropout: float = 0.1
    """share of captions replaced by the null condition, in [0, 1]"""
    seed: int = 0
    """of the order of the data, the masks and the first weights"""
    bfloat16: bool = False
    """run the network in bfloat16 (worth it on a GPU); losses and weights stay float32"""
    compile: bool = True
    """compile the network first (a minute, then up to twice as fast)"""
    width: int = 192
    """of the network; a multiple of 32"""
    depth: int = 6
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
        expect(self.steps >= 1 and self.batch_size >= 1, "steps and batch_size of at least 1", self.steps)
        expect(0 <= self.caption_dropout <= 1, "caption_dropout in [0, 1]", self.caption_dropout)
        expect(self.width >= 32 and self.width % 32 == 0, "a width that is a multiple of 32", self.width)
        expect(self.depth >= 1 and self.words >= 1, "depth and words of at least 1", f"{self.depth}, {self.words}")
        expect(self.sample_every >= 1, "sample_every of at least 1", self.sample_every)


def train(generator: Any, batches: Captioned, config: Config, state: TrainingState) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`. The loss is in nats per masked token."""
    device = next(generator.network.parameters()).device
    generator.network.train()
    if config.compile:
        generator.network.compile()
    data = batches.from_step(state.step, config.workers)
    while state.step < config.steps:
        images, captions = next(data)
        count = len(images) * world()
        seeds = own(draw_seeds(config.seed, state.step, count))
        drop = own(caption_drop(config.seed, state.step, count, config.caption_dropout))
        condition = generator.caption_condition(captions, drop)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            loss = flow_matching(generator, images.to(device, non_blocking=True), condition, seeds)
        figures = state.update(loss.mean())
        yield StepRecord(state.step, figures)
