"""Contrastive training of an image and a text tower (CLIP, Radford et al. 2021, arXiv 2103.00020, Figure 3), with
hard negatives: captions that differ from the true one in one fact, as in NegCLIP (Yuksekgonul et al. 2023, arXiv
2210.01936). A tower that never meets them learns a bag of words: it does not tell left from right.

Every picture of the batch is told from every caption, its own hard negatives among them; every caption from every
picture. Pictures whose captions read the same count as each other's positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import expect
from ..protocols import Prompt
from ..records import StepRecord
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned


@dataclass(frozen=True)
class Config:
    """Contrastive training."""

    steps: int = 10_000
    """optimiser steps"""
    batch_size: int = 128
    """pictures a step; each also meets its hard negatives"""
    negatives: int = 3
    """captions with one fact changed, for each picture"""
    seed: int = 0
    """of the order of the data, the changed facts and the first weights"""
    bfloat16: bool = False
    """run the towers in bfloat16 (worth it on a GPU)"""
    compile: bool = True
    """compile the towers first"""
    size: int = 64
    """side of the pictures, pixels"""
    width: int = 160
    """of both towers; a multiple of 32"""
    depth: int = 4
    """blocks of the image tower"""
    words: int = 12
    """the longest caption that is read"""
    captions: str = ""
    """how a CSV's columns make a caption, such as "{label}, {tags}"; empty: its caption column"""
    held_out: float = 0.0
    """share of your own pictures, whole labels at a time, that is kept from training, in [0, 1)"""
    workers: int = 0
    """processes that prepare pictures; 0: the training process does"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            learning_rate=1e-3, warmup_steps=500, weight_decay=0.05, cosine_steps=10_000, ema_decay=0.999
        )
    )

    def __post_init__(self) -> None:
        expect(self.steps >= 1, "steps of at least 1", self.steps)
        expect(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        expect(self.negatives >= 0, "negatives of at least 0", self.negatives)
        expect(self.width >= 32 and self.width % 32 == 0, "a width that is a multiple of 32", self.width)
        expect(self.size >= 8 and self.size % 8 == 0, "a size that is a multiple of 8", self.size)
        expect(self.depth >= 1 and self.words >= 1, "depth and words of at least 1", f"{self.depth}, {self.words}")


def contrastive(image: Tensor, text: Tensor, other: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """The symmetric loss of each pair, (B,).

    image, text (B, F) and other (K, F), of length 1; same (B, B) bool: caption j is true of picture i (the diagonal
    is); scale: the inverse temperature. A row with several positives shares its target among them.
    """
    logits = scale * image @ torch.cat([text, other]).T  # (B, B + K)
    target = same.float() / same.float().sum(1, keepdim=True)
    by_image = -(target * F.log_softmax(logits, 1)[:, : len(text)]).sum(1)
    by_text = -(target * F.log_softmax(logits[:, : len(text)].T, 1)).sum(1)
    return (by_image + by_text) / 2


def train(
    clip: Any,
    batches: Captioned,
    hard_negatives: Callable[[Sequence[Prompt], int], list[Prompt]],
    config: Config,
    state: TrainingState,
) -> Iterator[StepRecord]:
    """hard_negatives(captions, seed) gives captions that are each false of the picture they were made for."""
    device = next(clip.network.parameters()).device
    clip.network.train()
    if config.compile:
        clip.network.compile()
    data = batches.from_step(state.step, config.workers)
    while state.step < config.steps:
        images, captions = next(data)
        wrong = [
            p for k in range(config.negatives)
            for p in hard_negatives(captions, config.seed + state.step * config.negatives + k)
        ]  # fmt: skip
        words = clip.vocabulary.encode_known([p.text for p in [*captions, *wrong]]).to(device)
        own, count = words[: len(images)], len(images)
        same = (own[:, None] == own[None]).all(-1)  # (B, B)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            image, text, scale = clip.network(images.to(device, non_blocking=True), words)
        loss = contrastive(image.float(), text[:count].float(), text[count:].float(), same, scale)
        figures = state.update(loss.mean())
        accuracy = (image @ text[:count].T).argmax(1).eq(torch.arange(count, device=device)).float().mean()
        yield StepRecord(state.step, figures | {"batch_accuracy": float(accuracy)})
