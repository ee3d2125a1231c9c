"""What the tuning algorithms do alike with a generator's trajectory: choose prompts, judge with a gradient, draw and
keep scored pictures. Letters: B batch, K samples per prompt, N pictures of a set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NotDifferentiable
from ..picture_bytes import as_bytes, from_bytes
from ..protocols import Condition, Generator, Reward
from ..randomness import mix, stream
from ..ranks import gather, part
from ..records import Prompt
from ..sampling import sample_batches, score_checked


def choose(prompts: Sequence[Prompt], config: Any, step: int) -> list[Prompt]:
    """`config.batch_size` prompts for this step, drawn with replacement from `config.seed`."""
    rows = stream(config.seed, step=step, purpose="prompts").integers(len(prompts), size=config.batch_size)
    return [prompts[i] for i in rows]


def distinct(prompts: Sequence[Prompt], count: int, seed: int, number: int = 0) -> list[Prompt]:
    """`count` prompts, or all where there are fewer, drawn without replacement; number: of the draw."""
    rows = stream(seed, step=number, purpose="distinct prompts").permutation(len(prompts))
    return [prompts[i] for i in rows[:count]]


def chosen_steps(steps: Sequence[int], share: float, seed: int, step: int) -> list[int]:
    """Of these steps of a trajectory a share, rounded up, drawn for one update; rising."""
    count = math.ceil(share * len(steps) - 1e-9)
    return sorted(stream(seed, step=step, purpose="trained steps").permutation(steps)[:count].tolist())


def condition_of(generator: Generator, prompts: Sequence[Prompt]) -> Condition:
    """The prompts with the generator's own guidance, as in sampling."""
    return Condition.of(prompts, getattr(generator, "guidance", 1.0))


def require_gradient(reward: Reward) -> None:
    """Raise NotDifferentiable for a reward without gradient."""
    if not reward.differentiable:
        raise NotDifferentiable(
            f"expected a reward with a gradient; '{reward.name}' has none. Use it with `search best-of-n`, "
            "`train raft`, `train flow-grpo`, `train nft` or `train awm`, or take alignment, sharpness or harmony"
        )


def judge(reward: Reward, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Scores (B,) with their gradient; NaN where the reward gave none, and no gradient goes back from there."""
    raw = score_checked(reward, images, prompts, grad=True)
    if images.requires_grad:
        leave_out(images, raw.isnan())
    return raw


def leave_out(images: Tensor, missing: Tensor) -> None:
    """Let no gradient back into the pictures where `missing` (B,) is true: the loss sends 0 there, but 0 times the
    derivative of what gave NaN is NaN."""
    images.register_hook(lambda g: g.masked_fill(missing.to(g.device).reshape(-1, 1, 1, 1), 0))


@dataclass(frozen=True)
class ScoredPictures:
    """Pictures with their words and scores, in memory; a map-style data set of (picture, prompt)."""

    images: Tensor  # (N, 3, H, W) uint8, as they would be saved
    prompts: tuple[Prompt, ...]
    scores: Tensor  # (N,) float32, NaN where there is none

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        return from_bytes(self.images[index]), self.prompts[index]

    def take(self, rows: Tensor) -> ScoredPictures:
        """The rows (n,) int64, in that order."""
        return ScoredPictures(self.images[rows], tuple(self.prompts[i] for i in rows.tolist()), self.scores[rows])


def draw_scored(
    generator: Generator, reward: Reward, prompts: Sequence[Prompt], per_prompt: int, seed: int, batch: int = 64
) -> ScoredPictures:
    """`per_prompt` pictures of each prompt, side by side, with their scores: N = len(prompts) per_prompt. Several
    processes share the work, and each gets all of them."""
    wanted = [p for p in prompts for _ in range(per_prompt)]
    mine, count = part(len(wanted)), len(wanted)
    asked, seeds = [wanted[k] for k in mine], [mix(seed, k) for k in mine]
    images, scores, done = [], [], 0
    for drawn in sample_batches(generator, asked, seeds, batch=batch):
        images.append(as_bytes(drawn).cpu())
        scores.append(score_checked(reward, drawn, asked[done : done + len(drawn)]).cpu())
        done += len(drawn)
    return ScoredPictures(gather(torch.cat(images), count), tuple(wanted), gather(torch.cat(scores), count))


def prompt_sets(prompts: Sequence[Prompt]) -> Tensor:
    """(N,) int64: equal where two pictures share their words, numbered in order of appearance."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(p.text, len(number)) for p in prompts], dtype=torch.int64)
