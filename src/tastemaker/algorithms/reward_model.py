"""A reward learned from preferences: the Bradley-Terry model (Biometrika 39, 1952) on pictures, as ImageReward has it
(Xu et al. 2023, arXiv 2304.05977, section 2.2):

    P(a better than b) = sigma(r(a) - r(b)),        L = -log sigma(r(better) - r(worse))

over pairs of pictures of one prompt. The paper drops ties; beside that, a tie may count as half a vote for each, or
be an outcome of its own (Davidson 1970, JASA 65:317):

    P(a) : P(b) : P(tie) = e^(m/2) : e^(-m/2) : nu,     m = r(a) - r(b)

From the paper: the first 70 % of the layers stay frozen (without it the model soon overfits), validation several
times an epoch, and the weights of the best validation loss are kept. Ours: weights per prompt as a setting, an early
end, and members that see other samples of the prompts (bagging, Breiman 1996): where they disagree, the model is
unsure.

Needs of the scorer: `network` and `logits(pictures, prompts) -> (M, U)`. Letters: B pairs, U pictures, M members.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.pair_batches import PairBatch, PairBatches
from ..errors import UnknownName, expect
from ..protocols import Prompt
from ..randomness import stream
from ..records import StepRecord
from .optimise import OptimiserConfig
from .selection import Selection as Selection


@dataclass(frozen=True)
class Config:
    """Reward-model training: on what, for how long, and when to stop."""

    base: str = "tiny-clip"
    """what is trained: tiny-clip[:PATH]; for real pictures features (of ImageNet), imagereward:PATH or blip:PATH"""
    steps: int = 400
    """the most optimiser steps"""
    batch_size: int = 128
    """pairs a step"""
    grouped: bool = True
    """the pairs of a prompt come together, so that each picture is read once for all of them"""
    ties: str = "drop"
    """what ties say: drop (nothing), half (half a vote for each) or davidson (an outcome of its own)"""
    tie_strength: float = 1.0
    """Davidson's nu: 1 ties equals one time in three"""
    equal_prompts: bool = False
    """every prompt counts the same, however many pairs it has"""
    members: int = 3
    """heads that learn from other samples of the prompts; more than one tells where the model is unsure"""
    width: int = 64
    """of a head; a multiple of 32"""
    depth: int = 1
    """blocks of a head"""
    frozen_share: float = 0.7
    """share of the towers' blocks that stay as they are, from the input on, in [0, 1]"""
    validation_share: float = 0.1
    """share of the prompts that chooses the weights"""
    test_share: float = 0.1
    """share of the prompts that only measures"""
    validate_every: int = 25
    """steps between two validations"""
    patience: int = 8
    """validations without a better loss after which training ends"""
    scale: str = ""
    """which ratings make the pairs, such as quality or alignment; empty: votes and rankings"""
    rating_margin: float = 0.0
    """ratings at most this far apart are a tie"""
    simulated_prompts: int = 300
    """without --data: prompts of the world that the simulated raters see, six pictures each"""
    simulated_agreement: float = 0.65
    """without --data: how often two simulated raters agree on a pair, in (0.5, 1)"""
    seed: int = 0
    """of the split, the order of the data and the first weights"""
    bfloat16: bool = False
    """run the network in bfloat16 (worth it on a GPU)"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            learning_rate=5e-4, warmup_steps=20, weight_decay=0.05, cosine_steps=400, ema_decay=0.98
        )
    )

    def __post_init__(self) -> None:
        if self.ties not in OBJECTIVES:
            raise UnknownName("way with ties", self.ties, OBJECTIVES)
        expect(self.steps >= 1 and self.batch_size >= 1, "steps and batch_size of at least 1", self.batch_size)
        expect(self.tie_strength > 0, "a tie_strength above 0", self.tie_strength)
        expect(self.members >= 1 and self.depth >= 1, "members and depth of at least 1", self.members)
        expect(self.width >= 32 and self.width % 32 == 0, "a width that is a multiple of 32", self.width)
        expect(0 <= self.frozen_share <= 1, "frozen_share in [0, 1]", self.frozen_share)
        shares = self.validation_share, self.test_share
        expect(
            shares[0] > 0 and shares[1] >= 0 and sum(shares) < 1,
            "validation_share above 0 and, with test_share, below 1",
            f"{shares[0]} and {shares[1]}",
        )
        expect(self.validate_every >= 1 and self.patience >= 1, "validate_every and patience of at least 1", "less")
        expect(self.rating_margin >= 0, "a rating_margin of at least 0", self.rating_margin)
        expect(0.5 < self.simulated_agreement < 1, "simulated_agreement in (0.5, 1)", self.simulated_agreement)
        expect(self.simulated_prompts >= 10, "simulated_prompts of at least 10", self.simulated_prompts)


def without_ties(margin: Tensor, preference: Tensor) -> Tensor:
    """-log sigma(r(better) - r(worse)), (B,); a tie says nothing and has no loss.

    margin: r(a) - r(b). preference: 1 where a is better, 0 where b is, 0.5 for a tie.
    """
    sign = 2 * preference - 1
    return sign.abs() * F.softplus(-sign * margin)


def half_votes(margin: Tensor, preference: Tensor) -> Tensor:
    """Cross-entropy with the preference as the target, (B,): a tie is half a vote for each, and pulls to margin 0."""
    return F.softplus(margin) - preference * margin


def davidson(margin: Tensor, preference: Tensor, nu: float = 1.0) -> Tensor:
    """-log P of what happened among a, b and a tie, (B,): Davidson 1970, Eq. 2.5, with nu the strength of ties."""
    tie = torch.full_like(margin, math.log(nu))
    log_p = F.log_softmax(torch.stack([margin / 2, -margin / 2, tie], -1), -1)
    happened = torch.where(preference == 0.5, 2, torch.where(preference > 0.5, 0, 1))
    return -log_p.gather(-1, happened.expand(margin.shape)[..., None])[..., 0]


OBJECTIVES: Mapping[str, Callable[..., Tensor]] = {
    "drop": without_ties,
    "half": half_votes,
    "davidson": davidson,
}


def objective_of(config: Config) -> Callable[[Tensor, Tensor], Tensor]:
    """(margin, preference) -> (B,)."""
    return partial(davidson, nu=config.tie_strength) if config.ties == "davidson" else OBJECTIVES[config.ties]


def bags(prompt_keys: Sequence[str], members: int, seed: int) -> Tensor:
    """(M, B): how often each member counts each pair, a Poisson(1) draw per member and prompt; one member: 1."""
    if members == 1:
        return torch.ones(1, len(prompt_keys))
    known = {
        key: [stream(seed, m, zlib.crc32(key.encode()), "bag").poisson(1.0) for m in range(members)]
        for key in set(prompt_keys)
    }
    return torch.tensor([known[key] for key in prompt_keys], dtype=torch.float32).T


class Scorer(Protocol):
    """A reward in the making. The difference of two logits of a prompt is the log odds of being preferred."""

    @property
    def network(self) -> nn.Module: ...
    def logits(self, pictures: Tensor, prompts: Sequence[Prompt]) -> Tensor: ...  # (M, U)


def train(
    scorer: Scorer, batches: PairBatches, validation: PairBatches, config: Config, selection: Selection
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `selection.step`, and ends where the validation loss rises.

    After the last turn `selection.keep_best()` puts the best weights into the network.
    """
    state, objective = selection.state, objective_of(config)
    data = batches.from_step(state.step)
    while state.step < config.steps and not selection.stale(config):
        batch = next(data)
        scorer.network.train()
        margin, preference, weight = margins(scorer, batch, config.bfloat16)
        counted = weight * bags(batch.prompt_keys, len(margin), config.seed).to(weight)
        figures = state.update((objective(margin, preference) * counted).mean())
        figures["batch_accuracy"] = accuracy(margin.detach().mean(0), preference)
        if state.step % config.validate_every == 0 or state.step == config.steps:
            with state.ema_weights():
                figures |= validate(scorer, validation, config)
                selection.take(figures["validation_loss"])
        yield StepRecord(state.step, figures)


def margins(scorer: Scorer, batch: PairBatch, bfloat16: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """r(a) - r(b) of each member, (M, B), with preference and weight (B,), on the network's device."""
    device = next(scorer.network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        logits = scorer.logits(batch.pictures.to(device, non_blocking=True), batch.prompts)
    a, b = batch.a.to(device), batch.b.to(device)
    return logits.float()[:, a] - logits.float()[:, b], batch.preference.to(device), batch.weight.to(device)


@torch.no_grad()
def validate(scorer: Scorer, held_out: PairBatches, config: Config) -> dict[str, float]:
    """`validation_loss` and `validation_accuracy` of the members' mean, over every pair."""
    scorer.network.eval()
    parts = [margins(scorer, batch, config.bfloat16) for batch in held_out.once()]
    margin, preference, weight = (torch.cat(v, -1) for v in zip(*parts))
    loss = (objective_of(config)(margin.mean(0), preference) * weight).mean()
    return {"validation_loss": float(loss), "validation_accuracy": accuracy(margin.mean(0), preference)}


def accuracy(margin: Tensor, preference: Tensor) -> float:
    """The share of decided pairs that the sign of the margin has right; an equal score counts half."""
    decided = preference != 0.5
    right = ((margin > 0) == (preference > 0.5)).double()
    right = torch.where(margin == 0, 0.5, right)[decided]
    return float(right.mean()) if len(right) else math.nan
