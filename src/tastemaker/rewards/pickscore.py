"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): a CLIP-H tuned on Pick-a-Pic's choices.

    score = exp(logit_scale) cos(picture, words)

Differences of two scores of one prompt are log-odds of preference. 77 tokens; shorter side to 224, middle square.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ..encoders.clip import Clip, ClipNetwork, Tokens, load_clip_folder
from ..encoders.pixels import Crop, half_down
from ..records import Prompt
from .of_pixels import OfPixels


class PickScore(OfPixels):
    """Differentiable. Scores of the release mostly lie between 18 and 24; compare pictures of one prompt."""

    differentiable = True
    range = (-100.0, 100.0)  # logit_scale is about log 100
    network: ClipNetwork

    def __init__(self, clip: Clip, name: str = "pickscore"):
        self.clip, self.name, self.view, self.provenance = clip, name, clip.view, clip.provenance
        self.network = clip.network

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""
        return self.network.logit_scale.exp() * self.clip.cosines(pixels, prompts)


def preference(scores: Tensor) -> Tensor:
    """(..., n) scores of n pictures of one prompt -> (..., n) probabilities that each is the preferred one."""
    return scores.softmax(-1)


def load_tuned_clip(folder: str | Path, name: str, tokenizer: str | Path | Tokens | None = None) -> PickScore:
    """A CLIPModel folder scored as PickScore is. Raises TastemakerError where a part of it is missing."""
    return PickScore(load_clip_folder(folder, partial(Crop, begin=half_down, rgb_first=True), tokenizer), name)


def load_pickscore(folder: str | Path, tokenizer: str | Path | Tokens | None = None) -> PickScore:
    """PickScore_v1's folder with the tokenizer of any CLIP in it, or in its folder `tokenizer`."""
    return load_tuned_clip(folder, "pickscore", tokenizer)
