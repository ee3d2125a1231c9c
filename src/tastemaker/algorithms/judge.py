"""A verifier learned from yes and no: ORM, PRM, PARM and PARM++ by the data recipe of "Can we generate images with
CoT?" (Guo et al. 2025, arXiv 2501.13926, sections 3.2, 4.3 and 5), at any scale.

    L = -log sigma(+-s)      s the log-odds of yes; + where the answer is yes

| recipe | rows |
|---|---|
| `orm` | finished pictures; is it what was asked for? |
| `prm` | previews; yes where one of `rollouts` completions from there is right (as Math-Shepherd, 2312.08935) |
| `parm` | previews: clear (steps after 11 of 18 yes, before 10 no); clear ones: the label of their own end; and `orm`
|
| `parm++` | the same, and for wrong pictures which words and which regions are wrong |

The paper has 120K, 80K and 200K rows of PARM's three tasks: a batch holds them as 0.3, 0.2 and 0.5. Members learn
from other samples of the prompts (bagging), so that their disagreement says where the judge is unsure. Whoever makes
the labels is not in this file: rows come as tensors. Letters: B rows, M members, Q questions, L words, N patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import TastemakerError, UnknownName, expect
from ..picture_bytes import from_bytes
from ..randomness import stream
from ..records import Prompt, StepRecord
from .optimise import OptimiserConfig
from .reward_model import bags
from .selection import Selection

QUESTIONS = ("score", "clear", "potential")
SHARES = {  # of a batch: score, clear, potential
    "orm": (1.0, 0.0, 0.0),
    "prm": (0.0, 0.0, 1.0),
    "parm": (0.5, 0.3, 0.2),
    "parm++": (0.5, 0.3, 0.2),
}


@dataclass(frozen=True)
class Config:
    """A verifier: whose pictures it learns from, by which recipe, for how long."""

    model: str = "tiny-masked"
    """the generator whose paths it learns to judge"""
    base: str = "tiny-clip"
    """what is trained: tiny-clip[:PATH], or vlm:FOLDER, a vision-language model that gets an adapter"""
    recipe: str = "parm++"
    """orm, prm, parm or parm++"""
    prompts: int = 600
    """of the embedded world, as many of each task, none the evaluation's (but for the 18 single objects there are)"""
    per_prompt: int = 8
    """paths of each"""
    rollouts: int = 4
    """completions from a preview, for prm"""
    sampling_steps: int | None = None
    """of a path; null: the generator's own"""
    schedule: str = ""
    """of masked tokens, as `search --schedule` has it; empty: the generator's own"""
    contrasts: bool = True
    """judge each picture against a prompt that has the other answer too; ours, not the paper's"""
    steps: int = 1500
    """optimiser steps at most"""
    batch_size: int = 96
    """rows a step"""
    fault_weight: float = 0.5
    """of the words and the regions, for parm++"""
    frozen_share: float = 1.0
    """share of tiny-clip's blocks that stay as they are, from the input on, in [0, 1]; trained on few pictures they
    forget more than they learn"""
    members: int = 3
    """heads that learn from other samples of the prompts"""
    width: int = 96
    """of a head; a multiple of 32"""
    depth: int = 2
    """blocks of a head"""
    lora_rank: int = 8
    """of the adapter of a vision-language model"""
    export: str = ""
    """a folder that gets the pictures and their questions as orm.json and parm.json, in the release's form"""
    validation_share: float = 0.15
    """share of the prompts that chooses the weights"""
    validate_every: int = 50
    """steps between two validations"""
    patience: int = 8
    """validations without a better loss after which training ends"""
    seed: int = 0
    """of prompts, pictures, the split, the order of the data and the first weights"""
    bfloat16: bool = False
    """run the network in bfloat16 (worth it on a GPU)"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            learning_rate=4e-4, warmup_steps=50, weight_decay=0.05, cosine_steps=1500, ema_decay=0.99
        )
    )

    def __post_init__(self) -> None:
        if self.recipe not in SHARES:
            raise UnknownName("recipe", self.recipe, SHARES)
        expect(self.prompts >= 4 and self.per_prompt >= 1, "prompts >= 4 and per_prompt >= 1", self.prompts)
        expect(self.sampling_steps is None or self.sampling_steps >= 1, "sampling_steps of at least 1", "less")
        expect(self.rollouts >= 1 and self.lora_rank >= 1, "rollouts and lora_rank of at least 1", self.rollouts)
        expect(self.steps >= 1 and self.batch_size >= 1, "steps and batch_size of at least 1", self.steps)
        expect(self.members >= 1 and self.depth >= 1, "members and depth of at least 1", self.members)
        expect(self.width >= 32 and self.width % 32 == 0, "a width that is a multiple of 32", self.width)
        expect(0 <= self.frozen_share <= 1, "frozen_share in [0, 1]", self.frozen_share)
        expect(0 < self.validation_share < 1, "validation_share in (0, 1)", self.validation_share)
        expect(self.validate_every >= 1 and self.patience >= 1, "validate_every and patience of at least 1", "less")


@dataclass(frozen=True)
class Rows:
    """Judged pictures."""

    images: Tensor  # (n, 3, H, W) uint8
    prompts: tuple[Prompt, ...]  # n
    question: Tensor  # (n,) int64, index into QUESTIONS
    answer: Tensor  # (n,) bool
    words: Tensor  # (n, L) int8: 1 wrong, 0 not, -1 nobody knows
    places: Tensor  # (n, N) int8, the same of regions

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> Rows:
        """The rows (m,) int64, in that order."""
        parts = (self.question, self.answer, self.words, self.places)
        return Rows(self.images[rows], tuple(self.prompts[i] for i in rows.tolist()), *(p[rows] for p in parts))


def answer_loss(odds: Tensor, answer: Tensor) -> Tensor:
    """-log P(the answer), (..., B), of log-odds of yes and (B,) bool."""
    return F.softplus(torch.where(answer, -odds, odds))


def fault_loss(odds: Tensor, wrong: Tensor) -> Tensor:
    """The mean over the known ones of -log P(label), (M, B, K) and (B, K) of 1, 0 and -1 -> (M, B); 0 where nothing
    is known."""
    known = (wrong >= 0).float()
    each = answer_loss(odds, wrong == 1) * known
    return each.sum(-1) / known.sum(-1).clamp_min(1)


def balanced(question: Tensor, recipe: str, count: int, seed: int, step: int) -> Tensor:
    """Rows (count,) int64 of a batch: each question in its share, drawn with replacement. Raises TastemakerError
    where the data has no row of a question that the recipe needs."""
    rng, parts, shares = stream(seed, step=step, purpose="judge rows"), [], SHARES[recipe]
    numbers = [round(count * share) for share in shares]
    numbers[max(range(3), key=shares.__getitem__)] += count - sum(numbers)
    for k, number in enumerate(numbers):
        own = (question == k).nonzero()[:, 0]
        if number and not len(own):
            raise TastemakerError(f"recipe={recipe} needs rows of '{QUESTIONS[k]}', and the data has none")
        parts.append(own[torch.from_numpy(rng.integers(len(own), size=number))] if number else own[:0])
    return torch.cat(parts)


def answered(judge: Any, rows: Rows, config: Config) -> tuple[Tensor, Tensor]:
    """Each member's loss on each row, (M, B), and the members' mean log-odds for the row's own question, (B,)."""
    device = next(judge.network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
        odds, words, places = judge.logits(from_bytes(rows.images), rows.prompts, rows.question)
    odds, answer = odds.float(), rows.answer.to(device)  # (M, B), (B,)
    loss = answer_loss(odds, answer)
    if config.recipe == "parm++":
        faults = fault_loss(words.float(), rows.words.to(device)) + fault_loss(places.float(), rows.places.to(device))
        loss = loss + config.fault_weight * faults
    return loss, odds.detach().mean(0)


def losses(judge: Any, rows: Rows, config: Config, bag: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
    """(M, B), and `accuracy`. bag (M, B): how often each member counts each row."""
    loss, odds = answered(judge, rows, config)
    right = ((odds > 0).cpu() == rows.answer).float()
    return loss if bag is None else loss * bag.to(loss.device), {"accuracy": float(right.mean())}


def train(judge: Any, rows: Any, held_out: Any, config: Config, selection: Selection) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `selection.step`, and ends where the validation loss rises. judge: its
    `logits(images, prompts, question)` give (M, B), (M, B, L), (M, B, N). rows, held_out: `Rows`, or what has their
    `question`, `answer` and `take`."""
    state = selection.state
    while state.step < config.steps and not selection.stale(config):
        batch = rows.take(balanced(rows.question, config.recipe, config.batch_size, config.seed, state.step))
        judge.network.train()
        bag = bags([p.text for p in batch.prompts], config.members, config.seed)
        loss, figures = losses(judge, batch, config, bag)
        figures = state.update(loss.mean()) | {"batch_accuracy": figures["accuracy"]}
        if state.step % config.validate_every == 0 or state.step == config.steps:
            with state.ema_weights():
                figures |= validate(judge, held_out, config)
                selection.take(figures["validation_loss"])
        yield StepRecord(state.step, figures)


@torch.no_grad()
def validate(judge: Any, rows: Any, config: Config, batch: int = 128) -> dict[str, float]:
    """`validation_loss`, weighed as a batch of the recipe is, and the accuracy of each question it asks."""
    judge.network.eval()
    found, odds = [], []
    for numbers in torch.arange(len(rows)).split(batch):
        loss, said = answered(judge, rows.take(numbers), config)
        found.append(loss.mean(0).cpu())
        odds.append(said.cpu())
    loss, right = torch.cat(found), (torch.cat(odds) > 0) == rows.answer
    figures, total = {}, 0.0
    for k, share in enumerate(SHARES[config.recipe]):
        own = rows.question == k
        if share and own.any():
            figures[f"{QUESTIONS[k]}_accuracy"] = float(right[own].float().mean())
            total += share * float(loss[own].mean())
    return {"validation_loss": total} | figures


def together(parts: Sequence[Rows]) -> Rows:
    """Rows after rows."""
    names = ("question", "answer", "words", "places")
    columns = [torch.cat([getattr(p, name) for p in parts]) for name in names]
    return Rows(torch.cat([p.images for p in parts]), tuple(x for p in parts for x in p.prompts), *columns)
