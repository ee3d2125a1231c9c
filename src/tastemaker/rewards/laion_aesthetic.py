"""LAION's aesthetic predictor v2 (Schuhmann 2022): a head on the picture's CLIP ViT-L/14 vector of length 1.

Trained on people's marks from 1 to 10; about 5 is average. The prompt is not read. The picture's shorter side becomes
224, then the middle square is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..encoders.clip import Clip, load_clip_folder
from ..encoders.official import assemble, read_tensors, weight_file
from ..errors import TastemakerError
from ..records import Prompt, Provenance
from ..weights import file_hash
from .of_pixels import OfPixels
from .score_head import ScoreHead

FILES = ("sac+logos+ava1-l14-linearMSE.pth", "aesthetic-head.safetensors")


class LaionAesthetic(OfPixels):
    """Differentiable."""

    name = "laion-aesthetic"
    differentiable = True
    range = (-math.inf, math.inf)

    def __init__(self, clip: Clip, head: ScoreHead, weight_hash: str = ""):
        if head.width != clip.dim:
            raise TastemakerError(
                f"the head reads {head.width} features, but this CLIP gives {clip.dim}; it needs ViT-L/14"
            )
        self.clip, self.head, self.view, self.network = clip, head, clip.view, clip.network
        said = clip.provenance
        self.provenance = Provenance(
            "LAION aesthetic v2", f"{weight_hash}+{said.weight_hash}".strip("+"), said.preprocessing
        )

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""
        return mark(self.head, self.clip.of_pixels(pixels))


def mark(head: ScoreHead, features: Tensor) -> Tensor:
    """(B, F) CLIP features of any length -> (B,)."""
    weight = next(head.parameters())
    with torch.autocast(weight.device.type, enabled=False):
        return head(unit(features).to(weight.device, weight.dtype))


def unit(features: Tensor) -> Tensor:
    """(B, F) to length 1, however short it was; zeros stay zeros."""
    length = features.double().norm(dim=-1, keepdim=True)
    return (features / torch.where(length == 0, 1, length)).to(features.dtype)


def load_head(file: Path) -> ScoreHead:
    """Raises TastemakerError where a key does not fit."""
    tensors = read_tensors(file)
    first = tensors.get("layers.0.weight")
    if first is None or first.ndim != 2:
        raise TastemakerError(
            f"{file} is no aesthetic head: it has no matrix 'layers.0.weight'; its first keys are: "
            f"{', '.join(sorted(tensors)[:3])}"
        )
    return assemble(lambda: ScoreHead(first.shape[1]), tensors, str(file))


def load_laion_aesthetic(folder: str | Path, clip: str | Path | None = None) -> LaionAesthetic:
    """A folder with the head and, in it or in its folder `clip`, the CLIP ViT-L/14 that transformers saves.

    clip: that folder, where it lies elsewhere; then `folder` may be the head's file. Raises TastemakerError where
    a part is missing.
    """
    folder = Path(folder)
    file = weight_file(folder, FILES, "LAION's aesthetic head")
    around = folder if folder.is_dir() else file.parent
    within = around / "clip" if (around / "clip").is_dir() else around
    return LaionAesthetic(load_clip_folder(clip or within, words=False), load_head(file), file_hash(file))
