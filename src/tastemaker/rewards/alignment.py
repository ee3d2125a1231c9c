"""How well a picture fits its words, by tiny-clip: the cosine of the two vectors times 10 (CLIPScore, Hessel et al.
2021, arXiv 2104.08718, without its cut at 0, so that it has a gradient everywhere)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..encoders.tiny_clip import TinyClip, load_tiny_clip
from ..protocols import Prompt


class Alignment:
    """Differentiable; prompts must use tiny-clip's words. path: another tiny-clip, as `train clip` writes it."""

    name = "alignment"
    differentiable = True
    range = (-10.0, 10.0)

    def __init__(self, path: str | None = None, clip: TinyClip | None = None):
        self.clip = clip or load_tiny_clip(path)
        self.provenance = self.clip.provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,). Raises UnknownName for a prompt word that tiny-clip does not know."""
        return 10 * (self.clip.image_vectors(images) * self.clip.text_vectors(prompts)).sum(-1)
