"""The settings that all methods which tune a generator share. Each adds its own, and says again what differs."""

# No `from __future__ import annotations`: pydantic 2.6 looks for the words of an annotation in the heir's file only.
from dataclasses import dataclass, field

from ..errors import expect
from .optimise import OptimiserConfig
from .watching import WatchConfig


@dataclass(frozen=True)
class TuningConfig:
    """What is tuned, after which reward, for how long, and what is looked at on the way."""

    model: str = "tiny-flow"
    """the generator that is tuned"""
    reward: str = "alignment"
    """what it follows: a name of `tastemaker models`, or FILE.py:NAME; of several, with commas, the mean z-score"""
    prompts: str = ""
    """a prompt file; empty: the embedded world"""
    lora_rank: int | None = None
    """rank of an adapter that is tuned in place of all weights; 0: all weights; null: 16 for diffusers, else 0"""
    gradient_checkpointing: bool = False
    """keep less for the backward pass and compute it again: less memory, about a third more time"""
    steps: int = 60
    """optimiser steps"""
    batch_size: int = 32
    """prompts a step; as many captioned pictures for the pretraining loss"""
    pretraining_weight: float = 1.0
    """of the loss on captioned pictures"""
    seed: int = 0
    """of prompts, pictures and noise"""
    workers: int = 0
    """processes that prepare pictures; 0: the training process does"""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """what is looked at on the way, and when to stop"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-4, warmup_steps=5, ema_decay=0.95)
    )

    def __post_init__(self) -> None:
        expect(self.steps >= 1, "steps of at least 1", self.steps)
        expect(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
