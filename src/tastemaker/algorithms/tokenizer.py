"""Training of a picture tokenizer with a lookup-free quantiser (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737, 3.1).

    L = |x' - x| + e |grad x' - grad x| + c (|z| - 1)^2 + h (E[H(p)] - H(E[p])),     p = sigma(4 z)

z are the latents whose signs are the bits of a token, p the probability of a bit that the distances of z to -1 and
1 give. The first entropy, of each bit, is to be small: latents shall be decided. The second, of the mean over the
batch, is to be large: all codes shall be used. It is taken over `entropy_group` bits at a time, since bits that are
each even may still say the same; a group of 1 is the form of Show-o's release. The release counts the squared
distance to the signs 1.25 times; the quarter belongs to a codebook, of which there is none. Ours counts it once.

Losses are means per picture, (B,); an entropy over the batch is a scalar. Letters: B batch, b bits, M = B h w tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import expect
from ..records import StepRecord
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned


@dataclass(frozen=True)
class Config:
    """A tokenizer: its shape, how long it is trained, what counts how much."""

    steps: int = 6000
    """optimiser steps"""
    batch_size: int = 16
    """pictures a step"""
    size: int = 64
    """side of the pictures, pixels"""
    factor: int = 8
    """pixels of a token, a side: 8 makes 64 tokens of a picture of 64, 4 makes 256; a power of 2"""
    bits: int = 12
    """of a token; the codebook has 2^bits codes"""
    channels: int = 32
    """of the convolutions at half the side; a multiple of 8"""
    edge_weight: float = 1.0
    """e: of the differences between neighbouring pixels, which keep edges sharp"""
    commitment_weight: float = 0.05
    """c: of the latents' distance to -1 and 1"""
    entropy_weight: float = 0.05
    """h: of decided latents and codes that are all used"""
    entropy_group: int = 6
    """bits whose joint use is evened; 1: each bit by itself"""
    seed: int = 0
    """of the order of the data and the first weights"""
    bfloat16: bool = False
    """run the network in bfloat16 (worth it on a GPU); losses and weights stay float32"""
    compile: bool = True
    """compile the network first (a minute, then faster)"""
    captions: str = ""
    """how a CSV's columns make a caption; the words are not read here"""
    sample_every: int = 500
    """steps between two sheets of pictures beside what their tokens give"""
    workers: int = 0
    """processes that prepare pictures; 0: the training process does"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(1e-3, warmup_steps=100, ema_decay=0.999, betas=(0.9, 0.99))
    )

    def __post_init__(self) -> None:
        expect(self.steps >= 1 and self.batch_size >= 1, "steps and batch_size of at least 1", self.steps)
        weights = (self.edge_weight, self.commitment_weight, self.entropy_weight)
        expect(min(weights) >= 0, "edge_weight, commitment_weight and entropy_weight of at least 0", weights)
        expect(1 <= self.entropy_group <= 10, "an entropy_group from 1 to 10", self.entropy_group)
        expect(self.sample_every >= 1, "sample_every of at least 1", self.sample_every)


def distance(drawn: Tensor, images: Tensor) -> Tensor:
    """Mean absolute difference, (B, 3, H, W) twice -> (B,)."""
    return (drawn - images).abs().flatten(1).mean(1)


def edge_distance(drawn: Tensor, images: Tensor) -> Tensor:
    """Mean absolute difference of the steps to the pixel on the right and to the one below, (B,)."""
    error = drawn - images
    return sum(error.diff(dim=axis).abs().flatten(1).mean(1) for axis in (-1, -2))  # type: ignore[return-value]


def commitment(z: Tensor) -> Tensor:
    """Mean squared distance of latents to their signs, (B, b, h, w) -> (B,)."""
    return (z.abs() - 1).pow(2).flatten(1).mean(1)


def bit_entropy(z: Tensor) -> Tensor:
    """Mean entropy of the bits in nats, (B, b, h, w) -> (B,): 0 where all are decided, log 2 where none is."""
    logit = 4 * z  # (z + 1)^2 - (z - 1)^2
    return (F.softplus(logit) - logit * logit.sigmoid()).flatten(1).mean(1)


def mean_entropy(z: Tensor, group: int = 1) -> Tensor:
    """Entropy of the batch's mean distribution over the codes of `group` bits at a time, in nats per bit: a scalar,
    log 2 where all codes are used alike. (B, b, h, w) -> ()."""
    p = (4 * z).sigmoid().movedim(1, -1).flatten(0, -2)  # (M, b)
    means = [_joint(part).mean(0).clamp_min(1e-12) for part in p.split(group, 1)]
    return torch.stack([-(m * m.log()).sum() for m in means]).sum() / p.shape[1]


def _joint(p: Tensor) -> Tensor:
    """(M, g) probabilities of bits -> (M, 2^g) of their codes."""
    codes = p.new_ones(len(p), 1)
    for bit in p.split(1, 1):
        codes = torch.cat([codes * (1 - bit), codes * bit], 1)
    return codes


def train(network: nn.Module, batches: Captioned, config: Config, state: TrainingState) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`. network: images -> (drawn, latents)."""
    device = next(network.parameters()).device
    network.train()
    if config.compile:
        network.compile()
    data = batches.from_step(state.step, config.workers)
    while state.step < config.steps:
        images = next(data)[0].to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            drawn, z = (out.float() for out in network(images))
        pixels, edges, near = distance(drawn, images), edge_distance(drawn, images), commitment(z)
        decided, used = bit_entropy(z).mean(), mean_entropy(z, config.entropy_group)
        loss = pixels.mean() + config.edge_weight * edges.mean() + config.commitment_weight * near.mean()
        parts = {"pixels": pixels.mean(), "edges": edges.mean(), "commitment": near.mean()}
        parts |= {"bit_entropy": decided, "mean_entropy": used}
        figures = state.update(loss + config.entropy_weight * (decided - used))
        yield StepRecord(state.step, figures | {name: float(value.detach()) for name, value in parts.items()})
