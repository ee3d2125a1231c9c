"""SigLIP's image tower (Zhai et al. 2023, arXiv 2303.15343), from folders that transformers saves.

A ViT without a class token; one learned query gathers the picture from all patches. LayerNorm eps 1e-6, tanh GELU.
Letters: B batch, N image tokens, D width, S side of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..records import Provenance
from ..weights import device_of, file_hash
from .blip import count, join, split
from .official import assemble, read_folder, read_json, shapes_of
from .pixels import HALF, Squash, normalise

OTHERS = ("text_model.", "logit_scale", "logit_bias")  # of a folder with both towers


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes; the defaults are so400m-patch14-384's."""

    size: int = 384
    patch: int = 14
    width: int = 1152
    depth: int = 27
    heads: int = 16
    hidden: int = 4304


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split(layer(x), self.heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(join(F.scaled_dot_product_attention(q, k, v)))


class Block(nn.Module):
    def __init__(self, config: SiglipConfig):
        super().__init__()
        width = config.width
        self.layer_norm1, self.self_attn = nn.LayerNorm(width, 1e-6), Attention(width, config.heads)
        self.layer_norm2, self.mlp = nn.LayerNorm(width, 1e-6), Perceptron(width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Blocks(nn.Module):
    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))


class Gather(nn.Module):
    """(B, N, D) -> (B, D)."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        width = config.width
        self.probe = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.layernorm, self.mlp = nn.LayerNorm(width, 1e-6), Perceptron(width, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        found = self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        return (found + self.mlp(self.layernorm(found)))[:, 0]


class Embeddings(nn.Module):
    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.position_embedding = nn.Embedding((config.size // config.patch) ** 2, config.width)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight


class SiglipNetwork(nn.Module):
    """Normalised pixels (B, 3, S, S) -> (B, D)."""

    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Blocks(config)
        self.post_layernorm, self.head = nn.LayerNorm(config.width, 1e-6), Gather(config)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for block in self.encoder.layers:
            x = block(x)
        return self.head(self.post_layernorm(x))


class Siglip:
    """An `Encoder` of the pooled features, (B, D). The whole picture is squeezed into the model's square."""

    name = "siglip"

    def __init__(self, network: SiglipNetwork, provenance: Provenance | None = None):
        self.network, self.dim = network, network.config.width
        self.view = Squash(network.config.size)
        self.provenance = provenance or Provenance("siglip", preprocessing=str(self.view))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) float32."""
        return self.of_pixels(self.view(images.to(device_of(self.network))))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B, D) float32."""
        probe = self.network.head.probe
        with torch.autocast(probe.device.type, enabled=False):
            return self.network(normalise(pixels.to(probe.device), HALF, HALF).to(probe.dtype)).float()


def load_siglip(folder: str | Path) -> Siglip:
    """A SiglipModel or SiglipVisionModel folder (config.json, weights). Raises TastemakerError where one is missing
    or a key does not fit."""
    folder = Path(folder)
    said = read_json(folder / "config.json")
    tensors, file = read_folder(folder)
    own = {k.removeprefix("vision_model."): v for k, v in tensors.items() if not k.startswith(OTHERS)}
    own = {k: v for k, v in own.items() if not k.endswith("position_ids")}
    config = config_of(own, str(file), (said.get("vision_config") or said).get("num_attention_heads", 12))
    network = assemble(lambda: SiglipNetwork(config), own, str(file))
    return Siglip(network, Provenance(f"siglip:{folder.name}", file_hash(file), str(Squash(config.size))))


def config_of(tensors: Mapping[str, Tensor], origin: str, heads: int) -> SiglipConfig:
    """Sizes from tensors. Raises TastemakerError, with the first keys, where one is missing."""
    needed = (
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.mlp.fc1.weight",
    )
    patches, places, hidden = shapes_of(tensors, needed, origin, "SigLIP")
    size = patches[-1] * math.isqrt(places[0])
    return SiglipConfig(size, patches[-1], patches[0], count(tensors, r"encoder\.layers\.(\d+)\."), heads, hidden[0])
