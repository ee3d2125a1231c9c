"""Corrections of the world: a right picture, the same scene with one fact wrong, what is wrong, and where.

The scene, its ground and all objects but those at fault are the same in both, so what is not at fault can be kept.
Everything follows from (seed, index). Letters: S pixels a side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..critique import emphasised
from ..randomness import mix, stream
from ..records import Prompt
from .faults import Fault, wrong_words
from .grammar import COLORS, OBJECTS, prompt_of, spec_of
from .scenes import SIZE, Item, Scene, compose, draw

KINDS = {  # what can be wrong, by task
    "single_object": ("class",),
    "two_object": ("class", "missing"),
    "counting": ("class", "missing"),
    "colors": ("color", "class"),
    "position": ("position", "class"),
    "color_attr": ("color", "class"),
}


@dataclass(frozen=True)
class Group:
    """One correction. at_fault: (S, S) bool, what the boxes of the objects at fault cover in either picture."""

    prompt: Prompt
    bad: NDArray  # (S, S, 3) float32 in [0, 1]
    good: NDArray
    reason: str
    at_fault: NDArray


@dataclass(frozen=True)
class WorldCorrections:
    """A map-style data set as data/corrections.py has it. seed: another seed, other scenes."""

    seed: int = 0
    size: int = SIZE
    length: int = 1_000_000

    def __len__(self) -> int:
        return self.length

    def group(self, index: int) -> Group:
        seed = mix(self.seed, index)
        spec = spec_of(seed)
        scene = compose(spec, seed)
        other, fault = spoiled(scene, spec, stream(seed, purpose="correction"))
        moved = set(scene.items) ^ set(other.items)
        prompt = prompt_of(spec)
        words = prompt.text.split()
        wrong = [word for word, is_wrong in zip(words, wrong_words([fault], words)) if is_wrong]
        reason = f"not as asked: {', '.join(wrong)}"
        return Group(prompt, draw(other, self.size), draw(scene, self.size), reason, covered(moved, self.size))

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        """((3, 3, S, S) float32: bad, good, at fault; the prompt with the reason in it)."""
        found = self.group(index)
        at_fault = np.repeat(found.at_fault[..., None], 3, -1).astype(np.float32)
        pictures = np.stack([found.bad, found.good, at_fault]).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(pictures)), emphasised(found.prompt, found.reason)


def spoiled(scene: Scene, spec: Mapping[str, Any], rng: np.random.Generator) -> tuple[Scene, Fault]:
    """The scene with one fact wrong, and which."""
    kind, items = str(rng.choice(KINDS[spec["tag"]])), list(scene.items)
    clauses = [clause for clause in spec["include"] for _ in range(clause["count"])]  # of each item
    at = int(rng.integers(len(items)))
    item, clause = items[at], clauses[at]
    lost = Fault(clause, "count" if spec["tag"] == "counting" else "class")
    if kind == "class":
        names = [name for name in OBJECTS if name not in {i.name for i in items}]
        items[at] = replace(item, name=str(rng.choice(names)))
        return replace(scene, items=tuple(items)), lost
    if kind == "missing":
        del items[at]
        return replace(scene, items=tuple(items)), lost
    if kind == "color":
        items[at] = replace(item, color=str(rng.choice([c for c in COLORS if c != item.color])))
        return replace(scene, items=tuple(items)), Fault(clause, "color")
    first, second = items
    swapped = (replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y))
    return replace(scene, items=swapped), Fault(clauses[1], "position")


def covered(items: set[Item], size: int) -> NDArray:
    """(S, S) bool: the middle of the pixel is in the box of one of them."""
    middle, out = (np.arange(size) + 0.5) * SIZE / size, np.zeros((size, size), bool)
    for box in (item.box for item in items):
        rows, columns = (middle >= box.y1) & (middle <= box.y2), (middle >= box.x1) & (middle <= box.x2)
        out |= rows[:, None] & columns[None]
    return out
