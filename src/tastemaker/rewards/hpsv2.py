"""HPS v2 and v2.1 (Wu et al. 2023, arXiv 2306.09341): a CLIP ViT-H/14 tuned on HPDv2's choices; score = cosine.

No logit scale (the benchmark script prints 100 times it). 77 tokens; the longest side to 224 and black around it. The
two versions are not comparable, and neither are scores of different prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..encoders.clip import Clip, Tokens, config_of, network_of, tokens_of
from ..encoders.clip_bpe import clean_open_clip
from ..encoders.official import read_tensors, weight_file
from ..encoders.pixels import Pad
from ..records import Prompt, Provenance
from ..weights import file_hash
from .of_pixels import OfPixels

FILES = {
    "hpsv2": ("HPS_v2_compressed.pt", "HPS_v2.pt", "model.safetensors"),
    "hpsv2.1": ("HPS_v2.1_compressed.pt", "HPS_v2.1.pt", "model.safetensors"),
}


class HpsV2(OfPixels):
    """Differentiable."""

    differentiable = True
    range = (-1.0, 1.0)

    def __init__(self, clip: Clip, name: str = "hpsv2"):
        self.clip, self.name, self.view, self.provenance = clip, name, clip.view, clip.provenance
        self.network = clip.network

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""
        return self.clip.cosines(pixels, prompts)


def load_hpsv2(
    path: str | Path,
    name: str = "hpsv2",
    tokenizer: str | Path | Tokens | None = None,
    heads: tuple[int, int] = (16, 16),
) -> HpsV2:
    """The released .pt, the same keys in safetensors, or a folder with one of them.

    name: `hpsv2` or `hpsv2.1`. tokenizer: a CLIP tokenizer's folder or file; None: beside the weights. heads: of
    attention for picture and text. Raises TastemakerError where a file is missing or a key does not fit.
    """
    file = weight_file(path, FILES[name], name)
    tensors = read_tensors(file, inside="state_dict")
    config = config_of(tensors, str(file), heads)
    view = Pad(config.size)
    made = Provenance(name, file_hash(file), str(view))
    tokens = tokens_of(tokenizer or file, clean_open_clip)
    return HpsV2(Clip(network_of(tensors, config, str(file)), tokens, view, made), name)
