"""A preference scorer of ImageReward's architecture (Xu et al. 2023, arXiv 2304.05977, section 2.2): BLIP's
image-grounded text encoder and five linear layers, trained further or from BLIP's own weights.

The network keeps the released key names inside, so what is trained here can be told from what was released only by
its weights; the constants of the scores are those of the validation pictures. Letters: B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.blip import BlipConfig, config_of
from ..encoders.official import read_tensors
from ..encoders.pixels import Crop, normalise
from ..encoders.wordpiece import WordPieces, load_word_pieces
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, fill, save_weights, shape_of
from .freezing import Part, Tower, freeze
from .imagereward import LENGTH, MEAN, STD, ImageReward, ImageRewardNetwork, load_imagereward

KIND = "blip"
TOWERS = ("visual_encoder.", "text_encoder.", "vision_proj.", "text_proj.")


class BlipScorerNetwork(nn.Module):
    """Normalised pixels (B, 3, S, S), ids and mask (B, 35) -> (1, B)."""

    mean: Tensor  # (1,), and so `std`: of its scores on the validation pictures
    std: Tensor

    def __init__(self, inner: ImageRewardNetwork):
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", torch.tensor([MEAN]))
        self.register_buffer("std", torch.tensor([STD]))

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self.inner(pixels, ids, mask)[None]


class BlipScorer:
    """Any words, cut at 35 tokens; pictures with the shorter side to 224, the middle square."""

    kind = KIND
    differentiable = True

    def __init__(self, network: BlipScorerNetwork, tokens: WordPieces, recipe: Any = None, digest: str = ""):
        self.network, self.tokens, self.recipe = network, tokens, recipe or {}
        self.view = Crop(network.inner.blip.config.size)
        self.provenance = Provenance("preference on BLIP", digest, f"{self.view}, {LENGTH} tokens")

    @classmethod
    def from_reward(cls, reward: ImageReward) -> BlipScorer:
        """To train a loaded ImageReward further."""
        return cls(BlipScorerNetwork(reward.network), reward.tokens)

    def freeze(self, share: float) -> None:
        """See freezing.py. The contrastive projections are not read and never trained."""
        blip = self.network.inner.blip
        blip.requires_grad_(False)
        self.network.inner.mlp.requires_grad_(True)
        picture, words = blip.visual_encoder, blip.text_encoder
        first: list[Part] = [picture.patch_embed, picture.cls_token, picture.pos_embed]
        freeze(
            [
                Tower(first, list(picture.blocks), [picture.norm]),
                Tower([words.embeddings], list(words.encoder.layer)),
            ],
            share,
        )

    def read(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, S, S): the middle square."""
        return self.view(images)

    def logits(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (1, B)."""
        device = device_of(self.network)
        ids, mask = self.tokens.encode([p.text for p in prompts], LENGTH)
        pixels = normalise(self.read(images.to(device)))
        return self.network(pixels, ids.to(device), mask.to(device))

    def write(self, path: str | Path, half: bool = False) -> str:
        """One safetensors file, vocabulary included; returns its sha256."""
        description = {
            "kind": "preference",
            "scorer": KIND,
            "network": asdict(self.network.inner.blip.config),
            "pieces": self.tokens.numbers,
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description, half)

    @classmethod
    def of(cls, tensors: dict[str, Tensor], said: dict[str, Any], origin: str, digest: str) -> BlipScorer:
        """From a file's content; raises TastemakerError where it does not fit."""
        config = shape_of(BlipConfig, said, origin, ("pieces",))
        network = BlipScorerNetwork(ImageRewardNetwork(config))
        fill(network, tensors, origin)
        return cls(
            network.eval().requires_grad_(False), WordPieces(said["pieces"], origin), said.get("recipe"), digest
        )


def continued(path: str) -> BlipScorer:
    """From the released ImageReward.pt, or one in that layout, with its vocabulary beside it."""
    return BlipScorer.from_reward(load_imagereward(path))


def new_on(path: str, seed: int, heads: int = 16, text_heads: int = 12) -> BlipScorer:
    """A fresh head on BLIP's own pretrained weights, as ImageReward began (`model_large.pth`, the key `model`).

    heads, text_heads: of attention. Raises TastemakerError where the file or the vocab.txt beside it is missing, or a
    tensor does not fit.
    """
    kept = {k: v for k, v in read_tensors(path, "model").items() if k.startswith(TOWERS)}
    kept = {k: v for k, v in kept.items() if not k.endswith("embeddings.position_ids")}
    config = config_of(kept, path, heads, text_heads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inner = ImageRewardNetwork(config)
        inner.mlp.begin()
    fill(inner.blip, kept, path)
    scorer = BlipScorer.from_reward(ImageReward(inner, load_word_pieces(path)))
    scorer.network.mean.zero_()
    scorer.network.std.fill_(1.0)
    return scorer
