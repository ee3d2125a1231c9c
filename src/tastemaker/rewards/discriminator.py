"""The discriminator as a reward (DRL's first stage, Beltran-Velez et al. 2026, arXiv 2606.19162, section 4 and I.1):

    r(x, y) = psi(h(z)) + <h(z), e(y)> + b(y),   z = phi(x), phi frozen

a projection discriminator (Miyato & Koyama 2018, arXiv 1802.05637) that learned to tell real pictures from a
generator's. Its logit is an estimate of log q(z | y) / p(z | y), real over generated: at lambda = 1 it tilts the
generator to the data's own distribution of features. y is a class, or a prompt as a frozen vector, or nothing.

    tm.load_reward("discriminator:RUN")         # the run of `train discriminator`, or its model.safetensors

Letters: B batch, D features, F numbers of a prompt, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..class_numbers import named_classes
from ..encoders.protocol import Encoder
from ..encoders.table import absolute, load_encoder, load_prompt_vectors
from ..errors import TastemakerError
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, file_hash, fill, load_weights, save_weights, shape_of
from .looks import ONE, Looks

KIND = "discriminator"
CLASS, NOTHING = "class", "none"


@dataclass(frozen=True)
class HeadConfig:
    """Shape of the head. classes or words: which of the two y is, both 0 where the head is told nothing."""

    features: int  # D
    classes: int = 0
    words: int = 0  # F
    width: int = 512  # W
    blocks: int = 0  # GELU residual blocks before the linear map; 0: linear, 2: the paper's MLP-2


class Block(nn.Module):
    """x + V gelu(U x); V begins at 0, so that a fresh block passes its input on. (B, D) -> (B, D)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.wide, self.narrow = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.gelu(self.wide(x)))


class OfClass(nn.Module):
    """Class numbers (B,) -> e(y) and b(y) side by side, (B, W + 1)."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(classes, width + 1))

    def forward(self, told: Tensor) -> Tensor:
        return F.embedding(told, self.table)


class OfWords(nn.Module):
    """Prompts' vectors (B, F) -> e(y) and b(y), linear in them, (B, W + 1); zeros where F is 0."""

    def __init__(self, words: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(words, width + 1))

    def forward(self, told: Tensor) -> Tensor:
        return told @ self.table


class ProjectionHead(nn.Module):
    """Features (B, D) and what is told (B,) or (B, F) -> logits (B,), all 0 while it is fresh.

    Features are centred and divided by one number, of the training set: for the linear head only another way to write
    it, with which one step size fits every encoder. They are not whitened, which would make much of features that
    hardly vary.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.config, width = config, config.width
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(()))
        self.blocks = nn.ModuleList(Block(config.features, width) for _ in range(config.blocks))
        self.linear, self.score = nn.Linear(config.features, width), nn.Linear(width, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.told = OfClass(config.classes, width) if config.classes else OfWords(config.words, width)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Take mean and scale from the training set's features (N, D), real and generated."""
        self.mean.copy_(features.mean(0))
        self.scale.copy_((features - self.mean).pow(2).mean().sqrt().clamp_min(1e-6))

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        x = (features - self.mean) / self.scale
        for block in self.blocks:
            x = block(x)
        h, said = self.linear(x), self.told(told)  # (B, W), (B, W + 1)
        return self.score(h)[:, 0] + (h * said[:, :-1]).sum(1) + said[:, -1]


@dataclass(frozen=True)
class Told:
    """What the head is told of a prompt."""

    name: str  # `class`, `none`, or a reader of encoders/table.py
    read: Callable[[Sequence[Prompt]], Tensor]  # B prompts -> (B,) int64 or (B, F) float32
    classes: int = 0
    words: int = 0
    weight_hash: str = ""


def told_by(name: str, classes: int = 0) -> Told:
    """Of `class` (then `classes` says how many), `none`, or a reader of prompts such as tiny-clip, minilm, clip:PATH.

    Raises UnknownName, and TastemakerError where weights are missing or there are no classes.
    """
    if name == NOTHING:
        return Told(name, lambda prompts: torch.zeros(len(prompts), 0))
    if name == CLASS:
        if classes < 1:
            raise TastemakerError("condition=class needs a generator of classes; take words, or condition=none")
        return Told(name, lambda prompts: named_classes(prompts, classes), classes=classes)
    vectors = load_prompt_vectors(name)
    return Told(absolute(name), vectors.read, words=vectors.dim, weight_hash=vectors.weight_hash)


class Discriminator:
    """Differentiable. The logit is not bounded, centred or scaled: lambda = 1 has its meaning only as it is.

    space: the encoder's name in encoders/table.py. looks: copies of a picture that its logit is a mean over.
    `network.to(device)` moves the head alone.
    """

    name = KIND
    differentiable = True
    range = (-math.inf, math.inf)

    def __init__(
        self,
        head: ProjectionHead,
        encoder: Encoder,
        space: str,
        told: Told,
        recipe: Any = None,
        digest: str = "",
        looks: Looks = ONE,
    ):
        self.looks = looks
        self.network, self.encoder, self.space, self.told, self.recipe = head, encoder, space, told, recipe or {}
        seen = encoder.provenance
        self.provenance = Provenance(
            f"{KIND} on {seen.model}, told {told.name.partition(':')[0]}",
            "+".join(h for h in (digest, seen.weight_hash) if h),
            seen.preprocessing,
        )

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,). Raises as the reader of prompts does."""
        device = device_of(self.network)
        told = self.told.read(prompts).to(device)
        seen = [self.network(self.encoder.features(c).to(device), told) for c in self.looks.copies(images)]
        return torch.stack(seen).mean(0)

    def write(self, path: str | Path) -> str:
        """The head alone in one safetensors file; encoder and reader are named, with their hashes. -> its sha256."""
        seen = self.encoder.provenance
        description = {
            "kind": KIND,
            "network": asdict(self.network.config),
            "encoder": {
                "name": absolute(self.space),
                "weight_hash": seen.weight_hash,
                "preprocessing": seen.preprocessing,
            },
            "told": {"name": self.told.name, "weight_hash": self.told.weight_hash},
            "looks": asdict(self.looks),
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description)


def load_discriminator(where: str | Path, encoder: Encoder | None = None, told: Told | None = None) -> Discriminator:
    """A run's folder or a file. encoder, told: in place of those that the file names, which must be the same.

    Raises TastemakerError where a file is missing, is no discriminator, or names an encoder that is not here or whose
    weights or preprocessing have changed since.
    """
    path = Path(where)
    path = path / "model.safetensors" if path.is_dir() else path
    tensors, said = load_weights(path)
    if said.get("kind") != KIND:
        raise TastemakerError(
            f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'; `tastemaker train discriminator` "
            "writes one"
        )
    config = shape_of(HeadConfig, said, str(path), ("encoder", "told"))
    encoder = encoder or load_encoder(said["encoder"]["name"])
    told = told or told_by(said["told"]["name"], config.classes)
    seen = asdict(encoder.provenance)
    _unchanged(path, said["encoder"], {k: seen[k] for k in ("weight_hash", "preprocessing")})
    _unchanged(path, said["told"], {"weight_hash": told.weight_hash})
    head = ProjectionHead(config)
    fill(head, tensors, str(path))
    head.eval().requires_grad_(False)
    looks = Looks(**said.get("looks", {}))
    return Discriminator(head, encoder, said["encoder"]["name"], told, said.get("recipe"), file_hash(path), looks)


def _unchanged(path: Path, said: Mapping[str, str], found: Mapping[str, str]) -> None:
    for what, value in found.items():
        if said[what] != value:
            raise TastemakerError(
                f"{path} was trained on {said['name']} with {what.replace('_', ' ')} {said[what] or 'unknown'!r}, "
                f"which now has {value or 'unknown'!r}; expected the same, so load those weights or train it again"
            )
