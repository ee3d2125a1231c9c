"""Self-correction tuning (PARM++): a masked-token generator learns to set right what a critique has found (Guo et al.
2025, arXiv 2501.13926, section 5), from groups of prompt, bad picture, good picture and reason.

    L = E[ -(1 / n) sum_{i in M} log p(good_i | good_{F \\ M}, bad_{not F}, c + reason) ],     M part of F

F are the tokens at fault: those of the regions that the group names, else those in which the two pictures differ. The
bad picture's tokens outside of F are known, as they are when `search reflect way=correct` fills F in again; of F the
share n / |F| = cos(pi u / 2) is masked, u in [0, 1). The caption is the prompt and once more the words of it that the
reason names. The paper's generator reads pictures beside its words, so it is given the whole bad picture and the
reason's text and draws all tokens anew; ours has no place for a second picture, and keeps what is right. The paper's
tuning takes 2 points from the base, so the pretraining loss stands beside ours. Captions are dropped now and then,
for guidance. Needs of the generator: `codec`, `loss` of masked tokens. Needs no reward.

Letters: B groups, N tokens, S pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import NotDifferentiable, TastemakerError, expect
from ..protocols import Condition, Draw
from ..randomness import mix, stream
from ..ranks import own, world
from ..records import Prompt, StepRecord
from .anchor import anchored, captioned_data
from .optimise import TrainingState
from .pretrain import Captioned, caption_drop, draw_seeds
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """Self-correction: what is tuned and for how long."""

    model: str = "tiny-masked"
    """the masked-token generator that is tuned"""
    steps: int = 300
    """optimiser steps"""
    batch_size: int = 32
    """groups a step; as many captioned pictures for the pretraining loss"""
    caption_dropout: float = 0.1
    """share of captions replaced by the null condition, in [0, 1]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.caption_dropout <= 1, "caption_dropout in [0, 1]", self.caption_dropout)


def tokens_at_fault(said: Tensor, bad: Tensor, good: Tensor) -> Tensor:
    """said (B, S, S): 1 where the bad picture is at fault, NaN where nobody said; tokens (B, N) of both -> (B, N)
    bool: tokens that a fault touches. Where nothing is said those that differ, and where none does, all. Raises
    TastemakerError for tokens that make no square."""
    side = math.isqrt(bad.shape[1])
    if side * side != bad.shape[1]:
        raise TastemakerError(f"self-correction needs a square of tokens, got {bad.shape[1]}")
    touched = F.adaptive_max_pool2d(said.nan_to_num(0)[:, None], side).flatten(1) > 0.5
    found = torch.where(touched.any(1)[:, None], touched, bad != good)
    return torch.where(found.any(1)[:, None], found, True)


def fault_draw(at_fault: Tensor, seeds: Tensor) -> Draw:
    """Masks (B, N) inside of `at_fault`, at least one token each, at random places, from the seeds alone."""
    masks = []
    for row, seed in zip(at_fault.cpu().numpy(), seeds.tolist()):
        numbers = stream(seed, purpose="correction")
        share, places = float(np.cos(np.pi / 2 * numbers.random())), numbers.permutation(np.flatnonzero(row))
        mask = np.zeros(len(row), bool)
        mask[places[: max(1, round(len(places) * share))]] = True
        masks.append(mask)
    noise = torch.from_numpy(np.stack(masks)).to(at_fault.device)
    return Draw(1 - noise.float().mean(1), noise)


def correction_loss(
    generator: Any, bad: Tensor, good: Tensor, at_fault: Tensor, condition: Condition, draw: Draw
) -> Tensor:
    """-log p of the good picture's masked tokens, a mean over them in nats, (B,). bad, good, at_fault (B, N)."""
    return generator.loss(torch.where(at_fault, good, bad), condition, draw)


def dropped(captions: Sequence[Prompt], drop: Tensor) -> list[Prompt]:
    """Those for which `drop` (B,) holds become the null prompt."""
    return [Prompt("") if gone else caption for caption, gone in zip(captions, drop.tolist())]


def train(
    generator: Any, groups: Captioned, batches: Captioned | None, config: Config, state: TrainingState
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`.

    groups: batches of (B, 3, 3, H, W), the bad picture, the good one and where the first is at fault
    (data/corrections.py), with prompts that name the reason. batches: captioned pictures for the pretraining loss, or
    None. Raises NotDifferentiable for a generator without tokens.
    """
    if not hasattr(generator, "logits"):
        raise NotDifferentiable(
            "self-correction tunes masked-token generators; use `train dpo` for flow and diffusion"
        )
    generator.network.eval()
    device = next(generator.network.parameters()).device
    chosen = groups.from_step(state.step, config.workers)
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        pictures, captions = next(chosen)
        count = len(pictures) * world()
        seeds = own(draw_seeds(mix(config.seed, 3), state.step, count))
        drop = own(caption_drop(config.seed, state.step, count, config.caption_dropout))
        bad, good, said = pictures.to(device).unbind(1)
        bad, good = generator.codec.encode(bad, seeds), generator.codec.encode(good, seeds)
        at_fault = tokens_at_fault(said[:, 0], bad, good)
        condition = getattr(generator, "caption_condition", Condition.of)(dropped(captions, drop))
        loss = correction_loss(generator, bad, good, at_fault, condition, fault_draw(at_fault, seeds)).mean()
        figures = {"correction_loss": float(loss.detach()), "at_fault": float(at_fault.float().mean())}
        loss, more = anchored(loss, generator, data, config.pretraining_weight, seeds)
        figures |= more | state.update(loss)
        yield StepRecord(state.step, figures)
