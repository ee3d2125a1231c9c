"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193; with registers: Darcet et al. 2023, arXiv 2309.16588) and DINOv3
(Siméoni et al. 2025, arXiv 2508.10104), from folders that transformers saves: the class token after the last norm.

Both are ViTs with a scale per channel on every branch. DINOv2 adds a learned place to every token, resized (bicubic)
from the side it was trained with; DINOv3 rotates queries and keys of the patches by their place (arXiv 2104.09864).
Letters: B batch, N tokens, D width, S side of the picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError
from ..records import Provenance
from ..weights import device_of, file_hash
from .blip import count, join, split
from .official import assemble, read_folder, read_json, shapes_of
from .pixels import Squash, normalise

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224  # pixels


@dataclass(frozen=True)
class DinoConfig:
    """Sizes; the tensors of a folder tell all but the last three."""

    width: int
    depth: int
    hidden: int
    patch: int
    registers: int
    places: int  # learned ones, of the class token too; 0: rotated by place
    biases: frozenset[str]  # of query, key and value, those that have one
    heads: int
    eps: float
    theta: float  # of the rotation


class Attention(nn.Module):
    def __init__(self, config: DinoConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        for name in ("q_proj", "k_proj", "v_proj"):
            self.add_module(name, nn.Linear(width, width, bias=name in config.biases))
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turn: Tensor | None) -> Tensor:
        q, k, v = (split(getattr(self, name)(x), self.heads) for name in ("q_proj", "k_proj", "v_proj"))
        if turn is not None:
            q, k = rotated(q, turn), rotated(k, turn)
        return self.o_proj(join(F.scaled_dot_product_attention(q, k, v)))


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.wide(x)))


class Block(nn.Module):
    def __init__(self, config: DinoConfig):
        super().__init__()
        width = config.width
        self.norm1, self.attention = nn.LayerNorm(width, config.eps), Attention(config)
        self.norm2, self.mlp = nn.LayerNorm(width, config.eps), Perceptron(width, config.hidden)
        self.layer_scale1, self.layer_scale2 = (nn.Parameter(torch.ones(width)) for _ in range(2))

    def forward(self, x: Tensor, turn: Tensor | None) -> Tensor:
        x = x + self.layer_scale1 * self.attention(self.norm1(x), turn)
        return x + self.layer_scale2 * self.mlp(self.norm2(x))


class DinoNetwork(nn.Module):
    """Normalised pixels (B, 3, S, S) -> the class token after the last norm, (B, D)."""

    def __init__(self, config: DinoConfig):
        super().__init__()
        self.config, width = config, config.width
        self.patch = nn.Conv2d(3, width, config.patch, config.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
        if config.places:
            self.position_embeddings = nn.Parameter(torch.randn(1, config.places, width) * 0.02)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, config.eps)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch(pixels)  # (B, D, h, w)
        side = patches.shape[-1]
        x = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        turn = None
        if self.config.places:
            x = x + self.places(side)
        else:
            turn = angles(side, self.config.width // self.config.heads, self.config.theta).to(x)
        if self.config.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(pixels), -1, -1), x[:, 1:]], 1)
        for block in self.layers:
            x = block(x, turn)
        return self.norm(x[:, 0])

    def places(self, side: int) -> Tensor:
        """(1, 1 + side^2, D)."""
        known, trained = self.position_embeddings, math.isqrt(self.config.places - 1)
        if side == trained:
            return known
        grid = known[:, 1:].unflatten(1, (trained, trained)).permute(0, 3, 1, 2)
        smooth = bool(self.config.registers)  # the models with registers were released with antialiasing here
        grid = F.interpolate(grid.float(), (side, side), mode="bicubic", align_corners=False, antialias=smooth)
        return torch.cat([known[:, :1], grid.to(known.dtype).flatten(2).transpose(1, 2)], 1)


def angles(side: int, width: int, theta: float) -> Tensor:
    """(side^2, width) radians: of each patch's centre in [-1, 1], rows first, at width / 4 frequencies, twice."""
    centre = (torch.arange(side) + 0.5) / side * 2 - 1
    where = torch.stack(torch.meshgrid(centre, centre, indexing="ij"), -1).reshape(-1, 2, 1)
    speed = theta ** -(torch.arange(width // 4) * 4 / width)
    return (2 * math.pi * where * speed).flatten(1).tile(2)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """(B, heads, N, d): the last tokens, which are the patches, each pair (i, i + d / 2) turned by its angle."""
    first, patches = x[..., : -len(turn), :], x[..., -len(turn) :, :]
    a, b = patches.chunk(2, -1)
    return torch.cat([first, patches * turn.cos() + torch.cat([-b, a], -1) * turn.sin()], -2)


class Dino:
    """An `Encoder` of the class token, (B, D). The whole picture is squeezed to 224 x 224."""

    def __init__(self, network: DinoNetwork, name: str, provenance: Provenance | None = None):
        self.network, self.name, self.dim = network, name, network.config.width
        self.view = Squash(SIZE)
        self.provenance = provenance or Provenance(name, preprocessing=str(self.view))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) float32."""
        return self.of_pixels(self.view(images.to(device_of(self.network))))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, 224, 224) as the view gives them -> (B, D) float32."""
        token = self.network.cls_token
        with torch.autocast(token.device.type, enabled=False):
            return self.network(normalise(pixels.to(token), IMAGENET_MEAN, IMAGENET_STD)).float()


def load_dinov2(folder: str | Path) -> Dino:
    """A Dinov2Model or Dinov2WithRegistersModel folder (config.json, weights); S, B or L. Raises TastemakerError
    where one is missing or a key does not fit."""
    return _load(Path(folder), "dinov2", theta=0.0, eps=1e-6)


def load_dinov3(folder: str | Path) -> Dino:
    """A DINOv3ViTModel folder, of a size whose perceptrons have no gate (S, B, L). Raises as `load_dinov2` does."""
    return _load(Path(folder), "dinov3", theta=100.0, eps=1e-5)


def _load(folder: Path, name: str, theta: float, eps: float) -> Dino:
    said = read_json(folder / "config.json")
    tensors, file = read_folder(folder)
    own = renamed(tensors)
    config = config_of(own, str(file), {"heads": 12, "theta": theta, "eps": eps} | settings_of(said))
    if bool(config.places) != (name == "dinov2"):
        raise TastemakerError(f"{file} is no {name}: it has {'' if config.places else 'no '}learned places")
    network = assemble(lambda: DinoNetwork(config), own, str(file))
    made = Provenance(f"{name}:{folder.name}", file_hash(file), f"{Squash(SIZE)}, ImageNet's mean and deviation")
    return Dino(network, name, made)


def settings_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What no tensor tells, as far as config.json does."""
    names = {"num_attention_heads": "heads", "layer_norm_eps": "eps", "rope_theta": "theta"}
    return {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs) is not None}


def config_of(tensors: Mapping[str, Tensor], origin: str, more: Mapping[str, Any]) -> DinoConfig:
    """Sizes from tensors. Raises TastemakerError, with the first keys, where one is missing."""
    patch, wide = shapes_of(tensors, ("patch.weight", "layers.0.mlp.wide.weight"), origin, "DINO")
    return DinoConfig(
        width=patch[0],
        depth=count(tensors, r"layers\.(\d+)\."),
        hidden=wide[0],
        patch=patch[-1],
        registers=tensors["register_tokens"].shape[1] if "register_tokens" in tensors else 0,
        places=tensors["position_embeddings"].shape[1] if "position_embeddings" in tensors else 0,
        biases=frozenset(n for n in ("q_proj", "k_proj", "v_proj") if f"layers.0.attention.{n}.bias" in tensors),
        **more,
    )


RENAMED = (  # two spellings: of files as released, and of later versions of transformers
    (r"^(?:dinov2|dinov2_with_registers|dinov3_vit|model)\.", ""),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch."),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.|model\.)?layers?\.", "layers."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attention.\1_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.layer_scale([12])\.lambda1$", r".layer_scale\1"),
    (r"\.mlp\.(?:fc1|up_proj)\.", ".mlp.wide."),
    (r"\.mlp\.(?:fc2|down_proj)\.", ".mlp.narrow."),
    (r"^layernorm\.", "norm."),
)
UNUSED = ("mask_token", "rope_embeddings.inv_freq", "rope_embeddings.periods")


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' keys to this file's; the mask token of the training is left out."""
    out = {}
    for key, tensor in tensors.items():
        for pattern, new in RENAMED:
            key = re.sub(pattern, new, key)
        if key not in UNUSED:
            out[key] = tensor
    return out
