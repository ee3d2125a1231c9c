"""BLIP's image-grounded text encoder: a ViT over patches, and a BERT that reads words with the picture in view.

Li et al. 2022, arXiv 2201.12086; the base of ImageReward (Xu et al. 2023, arXiv 2304.05977). Module names are the
keys of the released files, so that these load with a strict check. The picture's LayerNorm has eps 1e-6, the text's
1e-12; GELU is exact. Letters: B batch, N image tokens, L text tokens, V image width, D text width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .official import shapes_of


@dataclass(frozen=True)
class BlipConfig:
    """Sizes of both towers; the defaults are BLIP-large's."""

    size: int = 224  # side of the picture, pixels
    patch: int = 16  # side of a patch, pixels
    width: int = 1024  # V
    depth: int = 24
    heads: int = 16
    hidden: int = 4096  # of the picture's perceptrons
    words: int = 30524  # of BERT's vocabulary and [DEC], [ENC]
    positions: int = 512
    text_width: int = 768  # D
    text_depth: int = 12
    text_heads: int = 12
    text_hidden: int = 3072
    shared: int = 256  # width of the two contrastive projections, which ImageReward does not use
    dropout: float = 0.1  # of the text, in training only
    drop_path: float = 0.1  # of the last image block, in training only; it grows from 0 with depth


class Attention(nn.Module):
    """A ViT's self-attention over (B, N, V)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return self.proj(join(F.scaled_dot_product_attention(q, k, v)))


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ImageBlock(nn.Module):
    """Pre-norm block; in training a share `drop_path` of the pictures skips each half."""

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, 1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, 1e-6), Perceptron(width, hidden)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.kept(self.attn(self.norm1(x)))
        return x + self.kept(self.mlp(self.norm2(x)))

    def kept(self, change: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return change
        keep = 1 - self.drop_path
        return change * change.new_empty(len(change), 1, 1).bernoulli_(keep) / keep


class Patches(nn.Module):
    def __init__(self, patch: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class ImageEncoder(nn.Module):
    """Normalised pixels (B, 3, S, S) -> (B, N, V); token 0 stands for the whole picture."""

    def __init__(self, config: BlipConfig):
        super().__init__()
        width, patches = config.width, (config.size // config.patch) ** 2
        self.patch_embed = Patches(config.patch, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, patches + 1, width) * 0.02)
        drops = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(ImageBlock(width, config.heads, config.hidden, drop) for drop in drops)
        self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(pixels), -1, -1), self.patch_embed(pixels)], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TextAttention(nn.Module):
    """Post-norm attention of (B, L, D) to itself, or to image tokens (B, N, V)."""

    def __init__(self, config: BlipConfig, source: int):
        super().__init__()
        width = config.text_width
        self.heads, self.dropout = config.text_heads, config.dropout
        self.self = nn.ModuleDict(
            {"query": nn.Linear(width, width), "key": nn.Linear(source, width), "value": nn.Linear(source, width)}
        )
        self.output = AddAndNorm(width, width, config.dropout)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.self["query"](x), self.self["key"](source), self.self["value"](source)
        dropout = self.dropout if self.training else 0.0
        q, k, v = (split(part, self.heads) for part in (q, k, v))
        read = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.output(join(read), x)


class AddAndNorm(nn.Module):
    def __init__(self, source: int, width: int, dropout: float):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(source, width), nn.LayerNorm(width, 1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + before)


class TextBlock(nn.Module):
    """Words look at each other, then at the picture, then pass a perceptron."""

    def __init__(self, config: BlipConfig):
        super().__init__()
        self.attention = TextAttention(config, config.text_width)
        self.crossattention = TextAttention(config, config.width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.text_width, config.text_hidden)})
        self.output = AddAndNorm(config.text_hidden, config.text_width, config.dropout)

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        x = self.attention(x, x, mask)
        x = self.crossattention(x, seen)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Embeddings(nn.Module):
    def __init__(self, config: BlipConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.words, config.text_width)
        self.position_embeddings = nn.Embedding(config.positions, config.text_width)
        self.LayerNorm = nn.LayerNorm(config.text_width, 1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: ids.shape[1]]
        return self.dropout(self.LayerNorm(self.word_embeddings(ids) + places))


class TextBlocks(nn.Module):
    def __init__(self, config: BlipConfig):
        super().__init__()
        self.layer = nn.ModuleList(TextBlock(config) for _ in range(config.text_depth))


class TextEncoder(nn.Module):
    """ids (B, L) int64, mask (B, L) 1 for words and 0 for padding, seen (B, N, V) -> (B, L, D)."""

    def __init__(self, config: BlipConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = TextBlocks(config)

    def forward(self, ids: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        x, mask = self.embeddings(ids), mask[:, None, None].bool()  # (B, 1, 1, L)
        for block in self.encoder.layer:
            x = block(x, mask, seen)
        return x


class Blip(nn.Module):
    """Normalised pixels (B, 3, S, S), ids and mask (B, L) -> (B, D): the state of the first text token, [CLS]."""

    def __init__(self, config: BlipConfig):
        super().__init__()
        self.config = config
        self.visual_encoder, self.text_encoder = ImageEncoder(config), TextEncoder(config)
        self.vision_proj = nn.Linear(config.width, config.shared)
        self.text_proj = nn.Linear(config.text_width, config.shared)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return self.text_encoder(ids, mask, self.visual_encoder(pixels))[:, 0]


def split(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, heads, L, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    """(B, heads, L, d) -> (B, L, D)."""
    return x.transpose(1, 2).flatten(2)


def config_of(tensors: Mapping[str, Tensor], origin: str, heads: int = 16, text_heads: int = 12) -> BlipConfig:
    """The sizes of a checkpoint whose keys begin with `visual_encoder.`, `text_encoder.`, read from its tensors.

    heads, text_heads: of attention, which no tensor tells. Raises TastemakerError, with the file's first keys, where
    one is missing from which a size is read.
    """
    needed = (
        "visual_encoder.patch_embed.proj.weight",
        "visual_encoder.pos_embed",
        "visual_encoder.blocks.0.mlp.fc1.weight",
        "text_encoder.embeddings.word_embeddings.weight",
        "text_encoder.embeddings.position_embeddings.weight",
        "text_encoder.encoder.layer.0.intermediate.dense.weight",
        "vision_proj.weight",
    )
    conv, places, hidden, words, positions, text_hidden, proj = shapes_of(tensors, needed, origin, "BLIP checkpoint")
    return BlipConfig(
        size=conv[-1] * math.isqrt(places[1] - 1),
        patch=conv[-1],
        width=conv[0],
        depth=count(tensors, r"visual_encoder\.blocks\.(\d+)\."),
        heads=heads,
        hidden=hidden[0],
        words=words[0],
        positions=positions[0],
        text_width=words[1],
        text_depth=count(tensors, r"text_encoder\.encoder\.layer\.(\d+)\."),
        text_heads=text_heads,
        text_hidden=text_hidden[0],
        shared=proj[0],
    )


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many layers: one more than the largest number that stands in the pattern's group, 0 where there is none."""
    found = (re.match(pattern, key) for key in tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)
