"""tiny-clip: image and text towers of the embedded world, and its frozen feature space.

CLIP (Radford et al. 2021, arXiv 2103.00020) in small: a convolutional stem and a transformer over patches for
pictures, a transformer over words for captions. Letters: B batch, N patches, L words, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, file_hash, fill, load_weights, save_weights, shape_of, shipped
from .words import Vocabulary

KIND = "tiny-clip"


@dataclass(frozen=True)
class TowerConfig:
    """Shape of both towers."""

    size: int = 64  # side of the picture, pixels
    width: int = 160  # D
    depth: int = 4  # blocks of the image tower
    text_depth: int = 3  # blocks of the text tower
    heads: int = 5  # of attention
    features: int = 128  # of the shared space


def resize(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size), bilinear with antialiasing, differentiable; nothing to do at that size."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def transformer(width: int, heads: int, depth: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)


class ImageTower(nn.Module):
    """(B, 3, S, S) in [0, 1] -> (B, D) pooled features and (B, F) in the shared space, of length 1."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.GELU(), nn.GroupNorm(4, 32),
            nn.Conv2d(32, 64, 3, 2, 1), nn.GELU(), nn.GroupNorm(8, 64),
            nn.Conv2d(64, width, 3, 2, 1),
        )  # fmt: skip
        self.place = nn.Parameter(torch.randn(1, (config.size // 8) ** 2 + 1, width) * 0.02)
        self.pool = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = transformer(width, config.heads, config.depth)
        self.project = nn.Linear(width, config.features)

    def states(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, N + 1, D), the pooled state first."""
        patches = self.stem(images * 2 - 1).flatten(2).transpose(1, 2)  # (B, N, D)
        return self.blocks(torch.cat([self.pool.expand(len(images), -1, -1), patches], 1) + self.place)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.states(images)[:, 0]
        return pooled, F.normalize(self.project(pooled), dim=-1)


class TextTower(nn.Module):
    """(B, L) word numbers -> (B, F), of length 1."""

    def __init__(self, config: TowerConfig, words: int, length: int):
        super().__init__()
        self.word = nn.Embedding(words, config.width)
        self.place = nn.Parameter(torch.randn(1, length + 1, config.width) * 0.02)
        self.pool = nn.Parameter(torch.randn(1, 1, config.width) * 0.02)
        self.blocks = transformer(config.width, config.heads, config.text_depth)
        self.project = nn.Linear(config.width, config.features)

    def states(self, words: Tensor) -> Tensor:
        """(B, L) word numbers -> (B, L + 1, D), the pooled state first."""
        return self.blocks(torch.cat([self.pool.expand(len(words), -1, -1), self.word(words)], 1) + self.place)

    def forward(self, words: Tensor) -> Tensor:
        return F.normalize(self.project(self.states(words)[:, 0]), dim=-1)


class TinyClipNetwork(nn.Module):
    def __init__(self, config: TowerConfig, words: int, length: int):
        super().__init__()
        self.config = config
        self.image, self.text = ImageTower(config), TextTower(config, words, length)
        self.log_scale = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07), as CLIP begins

    def forward(self, images: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images)[1], self.text(words), self.log_scale.exp().clamp_max(100)


class TinyClip:
    """An Encoder: `features` are the image tower's pooled features, (B, D)."""

    name = KIND

    def __init__(self, network: TinyClipNetwork, vocabulary: Vocabulary, recipe=None, weight_hash: str = ""):
        self.network, self.vocabulary, self.recipe = network, vocabulary, recipe or {}
        self.dim = network.config.width
        self.provenance = Provenance(KIND, weight_hash, f"bilinear-antialias-{network.config.size}")

    @classmethod
    def new(cls, config: TowerConfig, vocabulary: Vocabulary, seed: int = 0) -> TinyClip:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(TinyClipNetwork(config, len(vocabulary), vocabulary.length), vocabulary)

    def preprocess(self, images: Tensor) -> Tensor:
        return resize(images, self.network.config.size).to(device_of(self.network))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D)."""
        return self.network.image(self.preprocess(images))[0]

    def image_vectors(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, F), of length 1."""
        return self.network.image(self.preprocess(images))[1]

    def text_vectors(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, F), of length 1. Raises UnknownName for a word outside the vocabulary."""
        return self.network.text(self.vocabulary.encode([p.text for p in prompts]).to(device_of(self.network)))

    def write(self, path: str | Path, half: bool = False) -> str:
        description = {
            "kind": KIND,
            "network": asdict(self.network.config),
            "words": self.vocabulary.words,
            "length": self.vocabulary.length,
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description, half)


def load_tiny_clip(path: str | Path | None = None) -> TinyClip:
    """The shipped one, or one that `train clip` wrote; frozen and in evaluation mode."""
    path = Path(path) if path else shipped(KIND)
    path = path / "model.safetensors" if path.is_dir() else path
    tensors, said = load_weights(path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    config = shape_of(TowerConfig, said, str(path), ("words", "length"))
    vocabulary = Vocabulary(said["words"], said["length"])
    network = TinyClipNetwork(config, len(vocabulary), vocabulary.length)
    fill(network, tensors, str(path))
    return TinyClip(network.eval().requires_grad_(False), vocabulary, said.get("recipe"), file_hash(path))
