"""The emoji world as training data: endless, every item a pure function of (seed, index).

`EmojiWorld(seed).clean` has true captions and clean pictures. The noisy mix is as the web is: a share of captions is
wrong (half of those say another scene altogether, half get one fact wrong) and a share of pictures is degraded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..randomness import mix, stream
from ..records import Prompt
from .degrade import KINDS
from .grammar import prompt_of, spec_of, swapped
from .scenes import SIZE, compose, draw


@dataclass(frozen=True)
class Example:
    """A picture with its caption and what is known about both."""

    picture: np.ndarray  # (H, W, 3) float32 in [0, 1]
    caption: Prompt  # what the data says
    truth: Prompt  # what the picture shows
    degraded: str  # the kind, or nothing


@dataclass(frozen=True)
class EmojiWorld:
    """seed: another seed, other scenes. Shares are in [0, 1]. length: how many items an epoch counts."""

    seed: int = 0
    size: int = SIZE
    wrong_captions: float = 0.0
    degraded: float = 0.0
    length: int = 1_000_000

    def __len__(self) -> int:
        return self.length

    def example(self, index: int) -> Example:
        seed = mix(self.seed, index)
        rng = stream(seed, purpose="example")
        spec = spec_of(seed)
        caption, kind = self._caption(spec, seed, rng), ""
        picture = draw(compose(spec, seed), self.size)
        if rng.random() < self.degraded:
            spoil = KINDS[int(rng.integers(len(KINDS)))]
            picture, kind = spoil(picture, rng), spoil.__name__
        return Example(picture, prompt_of(caption), prompt_of(spec), kind)

    def prompt(self, index: int) -> Prompt:
        """The caption alone, without drawing the picture."""
        seed = mix(self.seed, index)
        return prompt_of(self._caption(spec_of(seed), seed, stream(seed, purpose="example")))

    def _caption(self, spec: Mapping[str, Any], seed: int, rng: np.random.Generator) -> Mapping[str, Any]:
        """The scene's own, or a wrong one."""
        if rng.random() >= self.wrong_captions:
            return spec
        return spec_of(mix(seed, 1)) if rng.random() < 0.5 else swapped(spec, seed)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        """(3, H, W) float32 in [0, 1] and the caption."""
        found = self.example(index)
        return torch.from_numpy(np.ascontiguousarray(found.picture.transpose(2, 0, 1))), found.caption


def clean_world(seed: int = 0, size: int = SIZE) -> EmojiWorld:
    return EmojiWorld(seed, size)


def noisy_world(seed: int = 0, size: int = SIZE, wrong_captions: float = 0.25, degraded: float = 0.30) -> EmojiWorld:
    """A quarter of the captions wrong, three pictures in ten degraded."""
    return EmojiWorld(seed, size, wrong_captions, degraded)
