"""ImageReward (Xu et al. 2023, arXiv 2304.05977): a BLIP reads the prompt in view of the picture, a head scores it.

    score = (head([CLS]) - 0.16717...) / 1.03333...

The constants are the mean and standard deviation of its scores on its test set. 35 tokens of text, the rest is cut
off; picture: shorter side to 224, middle square. Letters: B batch, S side of the picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..encoders.blip import Blip, BlipConfig, config_of
from ..encoders.official import assemble, read_tensors, weight_file
from ..encoders.pixels import Crop, View, normalise
from ..encoders.wordpiece import WordPieces, load_word_pieces
from ..errors import TastemakerError
from ..records import Prompt, Provenance
from ..weights import file_hash, save_weights
from .of_pixels import OfPixels
from .score_head import ScoreHead

MEAN, STD = 0.16717362830052426, 1.0333394966054072
LENGTH = 35  # tokens
FILES = ("ImageReward.pt", "ImageReward.safetensors", "model.safetensors")


class ImageRewardNetwork(nn.Module):
    """Normalised pixels (B, 3, S, S), ids and mask (B, 35) -> (B,), before the constants."""

    def __init__(self, config: BlipConfig):
        super().__init__()
        self.blip, self.mlp = Blip(config), ScoreHead(config.text_width)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self.mlp(self.blip(pixels, ids, mask))


class ImageReward(OfPixels):
    """Differentiable. Around 0 for an average picture of its test set, mostly within -2 and 2, not bounded."""

    name = "imagereward"
    differentiable = True
    range = (-math.inf, math.inf)
    network: ImageRewardNetwork

    def __init__(self, network: ImageRewardNetwork, tokens: WordPieces, weight_hash: str = ""):
        words = network.blip.config.words
        if not words - 2 <= len(tokens) <= words:
            raise TastemakerError(
                f"the vocabulary has {len(tokens)} pieces, but the network knows {words} with [DEC] and [ENC]; "
                "give it the vocab.txt that it was trained with (bert-base-uncased's has 30,522 lines)"
            )
        self.network, self.tokens = network, tokens
        self.view: View = Crop(network.blip.config.size)
        self.provenance = Provenance("ImageReward", weight_hash, f"{self.view}, {LENGTH} tokens")

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""
        weight = self.network.blip.vision_proj.weight
        ids, mask = (t.to(weight.device) for t in self.tokens.encode([p.text for p in prompts], LENGTH))
        pixels = normalise(pixels.to(weight.device)).to(weight.dtype)
        with torch.autocast(weight.device.type, enabled=False):
            return (self.network(pixels, ids, mask) - MEAN) / STD

    def write(self, path: str | Path) -> str:
        """In the released key layout, with the heads of attention beside it; returns the file's sha256."""
        config = self.network.blip.config
        said = {"kind": self.name, "heads": config.heads, "text_heads": config.text_heads}
        return save_weights(path, self.network.state_dict(), said)


def load_imagereward(
    path: str | Path, vocabulary: str | Path | None = None, heads: int | None = None, text_heads: int | None = None
) -> ImageReward:
    """The released ImageReward.pt, the same in safetensors, one written by `ImageReward.write`, or a folder with it.

    vocabulary: bert-base-uncased's vocab.txt or its folder; None: beside the weights. heads, text_heads: of
    attention; None: what the file says, else the release's 16 and 12. Raises TastemakerError where the file or the
    vocabulary is missing or a key does not fit.
    """
    file = weight_file(path, FILES, "ImageReward")
    tensors = {k: v for k, v in read_tensors(file).items() if not k.endswith("embeddings.position_ids")}
    said = description(file)
    heads, text_heads = heads or said.get("heads", 16), text_heads or said.get("text_heads", 12)
    blip = {k.removeprefix("blip."): v for k, v in tensors.items() if k.startswith("blip.")}
    config = config_of(blip or tensors, str(file), heads, text_heads)
    network = assemble(lambda: ImageRewardNetwork(config), tensors, str(file))
    return ImageReward(network, load_word_pieces(vocabulary or file), file_hash(file))


def description(file: Path) -> Mapping[str, int]:
    """What `write` said beside the tensors; nothing for a released file."""
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, "pt") as opened:
        said = json.loads((opened.metadata() or {}).get("description", "{}"))
    return said if isinstance(said, dict) else {}
