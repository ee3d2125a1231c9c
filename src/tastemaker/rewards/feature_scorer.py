"""A preference scorer for real pictures on frozen features: EfficientNet-Lite0's stages and low-level statistics of
the picture, MiniLM's vector of the prompt, and small networks on top that learn from votes.

Both encoders come as packages, so nothing is downloaded. A member sees picture and prompt, each drawn together into a
few numbers, and their products: what fits the words is a matter of both. Letters: B batch, D and E features of
picture and prompt, W width, M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.efficientnet_lite0 import square
from ..encoders.lite0_stages import Lite0Stages
from ..encoders.low_level import LowLevel
from ..encoders.minilm import MiniLM
from ..errors import TastemakerError
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, fill, save_weights, shape_of

KIND = "features"
SIDE = 128  # pixels, of the picture that the low-level statistics are taken of


@dataclass(frozen=True)
class HeadConfig:
    """Shape of the members."""

    picture: int  # D
    prompt: int  # E
    components: int  # P, of the picture's features, at most D
    width: int = 64  # W
    members: int = 3  # M
    dropout: float = 0.3  # of the features, while training


class Member(nn.Module):
    """(B, P) and (B, E), standardised, to (B,)."""

    def __init__(self, config: HeadConfig):
        super().__init__()
        width = config.width
        self.picture, self.prompt = nn.Linear(config.components, width), nn.Linear(config.prompt, width)
        self.mixed = nn.Linear(3 * width, width)
        self.score = nn.Linear(width, 1)
        self.direct = nn.Linear(config.components, 1)  # a plain linear model beside the network
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.score, self.direct):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, picture: Tensor, prompt: Tensor) -> Tensor:
        picture, prompt = self.dropout(picture), self.dropout(prompt)
        seen, said = self.picture(picture), self.prompt(prompt)
        mixed = F.gelu(self.mixed(F.gelu(torch.cat([seen, said, seen * said], -1))))
        return (self.score(mixed) + self.direct(picture))[:, 0]


class FeatureNetwork(nn.Module):
    """(B, D) and (B, E) as the encoders give them -> (M, B)."""

    picture_mean: Tensor  # (D,)
    picture_std: Tensor
    picture_basis: Tensor  # (D, P)
    prompt_mean: Tensor  # (E,)
    prompt_std: Tensor

    def __init__(self, config: HeadConfig):
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(Member(config) for _ in range(config.members))
        for name, width in (("picture", config.picture), ("prompt", config.prompt)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))
        self.register_buffer("picture_basis", torch.eye(config.picture, config.components))
        self.register_buffer("mean", torch.zeros(config.members))
        self.register_buffer("std", torch.ones(config.members))

    def standardise(self, picture: Tensor, prompt: Tensor) -> None:
        """Take mean, deviation and principal components of the inputs from the training set, (N, D) and (N, E).

        There are more features than pictures and many say the same: the members read the first components, each
        with a deviation of 1. Needs at least `components` pictures.
        """
        for name, rows in (("picture", picture), ("prompt", prompt)):
            self.get_buffer(f"{name}_mean").copy_(rows.mean(0))
            self.get_buffer(f"{name}_std").copy_(rows.std(0).clamp_min(1e-6))
        whole = ((picture - self.picture_mean) / self.picture_std).clamp(-5, 5)
        _, sizes, basis = torch.linalg.svd(whole - whole.mean(0), full_matrices=False)
        count = self.config.components
        self.picture_basis.copy_(basis[:count].T * (len(whole) - 1) ** 0.5 / sizes[:count].clamp_min(1e-6))

    def forward(self, picture: Tensor, prompt: Tensor) -> Tensor:
        picture = ((picture - self.picture_mean) / self.picture_std).clamp(-5, 5) @ self.picture_basis
        prompt = ((prompt - self.prompt_mean) / self.prompt_std).clamp(-5, 5)
        return torch.stack([member(picture, prompt) for member in self.members])


class Encoders(Protocol):
    """What is read of pictures and prompts; frozen."""

    def pictures(self, images: Tensor) -> Tensor: ...  # (B, 3, H, W) in [0, 1] -> (B, D), differentiable
    def prompts(self, prompts: Sequence[Prompt]) -> Tensor: ...  # (B, E)


class PackagedEncoders:
    """EfficientNet-Lite0's stages with low-level statistics, and MiniLM."""

    def __init__(self) -> None:
        self.stages, self.low, self.words = Lite0Stages(), LowLevel(), MiniLM()
        self.digest = f"{self.stages.provenance.weight_hash}+{self.words.provenance.weight_hash}"

    def pictures(self, images: Tensor) -> Tensor:
        return torch.cat([self.stages.features(images), self.low.features(square(images, SIDE))], 1)

    def prompts(self, prompts: Sequence[Prompt]) -> Tensor:
        return self.words.vectors(prompts)


class FeatureScorer:
    """Any picture, any words."""

    kind = KIND
    differentiable = True

    def __init__(self, network: FeatureNetwork, encoders: Encoders, recipe: Any = None, digest: str = ""):
        self.network, self.encoders, self.recipe = network, encoders, recipe or {}
        self.provenance = Provenance("preference on features", digest, f"whole picture to {SIDE} x {SIDE}")

    @classmethod
    def new(cls, config: HeadConfig, encoders: Encoders, seed: int = 0) -> FeatureScorer:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(FeatureNetwork(config), encoders)

    def freeze(self, share: float) -> None:
        """The encoders are always frozen."""

    def logits(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (M, B)."""
        device = device_of(self.network)
        return self.network(self.encoders.pictures(images).to(device), self.encoders.prompts(prompts).to(device))

    def write(self, path: str | Path, half: bool = False) -> str:
        """The members alone; the encoders come with their packages and are named by their hash."""
        description = {
            "kind": "preference",
            "scorer": KIND,
            "network": asdict(self.network.config),
            "encoders": getattr(self.encoders, "digest", ""),
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description, half)

    @classmethod
    def of(cls, tensors: dict[str, Tensor], said: dict[str, Any], origin: str, digest: str) -> FeatureScorer:
        """From a file's content; raises TastemakerError where it does not fit, or its encoders were others."""
        network = FeatureNetwork(shape_of(HeadConfig, said, origin, ("encoders",)))
        fill(network, tensors, origin)
        encoders = PackagedEncoders()
        if said["encoders"] != encoders.digest:
            raise TastemakerError(
                f"{origin} was trained on other weights of EfficientNet-Lite0 or MiniLM than are installed; install "
                "those versions, or train it again"
            )
        return cls(network.eval().requires_grad_(False), encoders, said.get("recipe"), digest)


class CachedScorer:
    """The same network on features that were read before: what is frozen is read once, not once an epoch.

    words: (E,) of each prompt by its text.
    """

    def __init__(self, network: FeatureNetwork, words: dict[str, Tensor]):
        self.network, self.words = network, words

    def logits(self, features: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(U, D) -> (M, U)."""
        return self.network(features, torch.stack([self.words[p.text] for p in prompts]).to(features.device))
