"""CLIPScore (Hessel et al. 2021, arXiv 2104.08718): w max(cos(picture, words), 0), w = 2.5.

Words are read as "A photo depicts ..."; 77 tokens; shorter side to 224, middle square. The paper used ViT-B/32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..encoders.clip import Clip, Tokens, load_clip_folder
from ..records import Prompt
from .of_pixels import OfPixels

W, PREFIX = 2.5, "A photo depicts "


class ClipScore(OfPixels):
    """Differentiable where the cosine is above 0; below it the score is 0 and so is the gradient."""

    name = "clipscore"
    differentiable = True
    range = (0.0, W)

    def __init__(self, clip: Clip, prefix: str = PREFIX):
        self.clip, self.prefix, self.view, self.provenance = clip, prefix, clip.view, clip.provenance
        self.network = clip.network

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""
        read = [Prompt(self.prefix + p.text) for p in prompts]
        return W * self.clip.cosines(pixels, read).clamp_min(0)


def clipscore(image: Tensor, text: Tensor, w: float = W) -> Tensor:
    """(B, F) vectors of any length -> (B,)."""
    return w * F.cosine_similarity(image, text, dim=-1, eps=0).clamp_min(0)


def reference_score(text: Tensor, references: Sequence[Tensor]) -> Tensor:
    """(B, F) and B sets of (n, F): the largest cosine with one of its references, (B,); not clipped at 0."""
    found = [F.cosine_similarity(t[None], r, dim=-1, eps=0).max() for t, r in zip(text, references)]
    return torch.stack(found) if found else text.new_empty(0)


def refclipscore(score: Tensor, reference: Tensor) -> Tensor:
    """(B,) and (B,): their harmonic mean."""
    return 2 * score * reference / (score + reference)


def load_clipscore(folder: str | Path, tokenizer: str | Path | Tokens | None = None) -> ClipScore:
    """A CLIP folder as transformers saves it (config.json, weights, tokenizer)."""
    return ClipScore(load_clip_folder(folder, tokenizer=tokenizer))
