"""What drl.py measures on: clean drawings of the emoji world, and each generator's pictures of the same prompts.

Prompts are drawn as the world's captions are, one picture of each, and every generator draws from the same seeds
without guidance. Pictures are seen through 8 bits, as files would be, and kept with all that is read off them.
Letters: N pictures of a generator, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tastemaker.encoders.protocol import Encoder, extract
from tastemaker.encoders.table import load_encoder
from tastemaker.evaluation import drift
from tastemaker.picture_bytes import as_bytes, from_bytes
from tastemaker.randomness import mix
from tastemaker.records import Prompt
from tastemaker.rewards.table import load_rewards
from tastemaker.sampling import sample_batches, score
from tastemaker.workflows.simulated_votes import utilities
from tastemaker.workflows.tuning import training_prompts
from tastemaker.world.check import WorldCheck
from tastemaker.world.dataset import clean_world
from tastemaker.world.grammar import prompt_of, spec_of
from tastemaker.world.raters import Taste

from .simulated_pool import stored

TRAINED, HELD_OUT = "efficientnet-lite0", "tiny-clip"  # spaces: the discriminator's, and one that it never saw
SPACES = (TRAINED, HELD_OUT)
REWARDS = ("preference", "alignment", "sharpness", "harmony")
WORLD = 40_960  # seed of the compared prompts
REAL = 2  # reference drawings for each compared picture


@dataclass(frozen=True)
class Drawn:
    """What is known of N pictures; scores and looks are empty where they were not asked for."""

    features: Mapping[str, Tensor]  # space -> (N, D)
    scores: Mapping[str, Tensor]  # reward -> (N,)
    looks: Mapping[str, Tensor]  # figure of evaluation/drift.py -> (N,)
    images: Tensor  # (N, 3, H, W) uint8


@cache
def space(name: str) -> Encoder:
    return load_encoder(name)


@cache
def compared(count: int) -> tuple[Prompt, ...]:
    """N prompts; about a sixth of them each of the world's tasks."""
    return tuple(prompt_of(spec_of(mix(WORLD, k))) for k in range(count))


def trained_on(count: int, seed: int) -> list[Prompt]:
    """Prompts for trainings, none of which is compared on but for the 18 single objects that there are."""
    return training_prompts(seed, without=compared(count))


def in_groups(texts: Sequence[str], groups: int) -> Tensor:
    """(N,) int64 below `groups`: equal words share a group."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(text, len(number)) % groups for text in texts])


def looked_at(images: Tensor, spaces: Sequence[str] = SPACES) -> dict[str, Tensor]:
    """images (N, 3, H, W) uint8 -> `space/NAME` (N, D); in small batches, which stay in a processor's cache."""
    pictures = from_bytes(images)
    return {f"space/{name}": extract(space(name), pictures.split(16)) for name in spaces}


def judged(images: Tensor, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """`score/NAME` and `look/NAME`, each (N,): rewards, the world's check, what simulated raters think, drift."""
    pictures, rewards = from_bytes(images), [*load_rewards(REWARDS), WorldCheck()]
    columns = score(rewards, pictures, list(prompts), batch=32).T
    found = {f"score/{reward.name}": column for reward, column in zip(rewards, columns)}
    found["score/raters"] = utilities(images.unbind(), list(prompts), Taste())
    return found | {f"look/{name}": value for name, value in drift.figures(pictures).items()}


def drawn(file: Path, load: Callable[[], Any], prompts: Sequence[Prompt], scored: bool) -> Drawn:
    """Of the generator that `load` gives, kept in a file; seed k belongs to prompt k. scored: rewards too."""

    def make() -> dict[str, Tensor]:
        seeds = [mix(WORLD, 1, k) for k in range(len(prompts))]
        parts = sample_batches(load(), prompts, seeds, guidance=1.0, batch=32)
        with torch.no_grad():
            images = torch.cat([as_bytes(part).cpu() for part in parts])
            return {"images": images, **looked_at(images), **(judged(images, prompts) if scored else {})}

    return as_drawn(stored(file, make))


def as_drawn(tensors: Mapping[str, Tensor]) -> Drawn:
    def under(kind: str) -> dict[str, Tensor]:
        return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}

    return Drawn(under("space"), under("score"), under("look"), tensors["images"])


def clean_drawings(file: Path, count: int, change: Callable[[Tensor], Tensor] | None = None) -> Drawn:
    """REAL + 1 times `count` clean pictures of other scenes: the reference, and behind it those of the floor.

    change: what is done to pictures (B, 3, 64, 64) in [0, 1] first, such as a generator's codec.
    """
    world = clean_world(WORLD + 1)

    def make() -> dict[str, Tensor]:
        rows = torch.arange((REAL + 1) * count).split(64)
        with torch.no_grad():
            batches = (torch.stack([world[int(k)][0] for k in part]) for part in rows)
            images = torch.cat([as_bytes(change(b).clamp(0, 1) if change else b).cpu() for b in batches])
            looks = {f"look/{name}": value for name, value in drift.figures(from_bytes(images)).items()}
            return {"images": images, **looked_at(images), **looks}

    return as_drawn(stored(file, make))
