"""A preference scorer on tiny-clip's towers: a small transformer reads the patches of the picture and the words of
the prompt together, as BLIP's image-grounded text encoder does for ImageReward (arXiv 2304.05977, section 2.2).

A head begins as the cosine of both towers' vectors, so that what they know of picture and words need not be learned
from votes again. They were trained to name things and may forget how a picture is drawn, so each head also sees the
statistics of `encoders/low_level.py`, standardised on training pictures, with the logarithms of their sizes.
Letters: B batch, N patches, L words, D width of the towers, W of a head, Q statistics, M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.low_level import LowLevel
from ..encoders.tiny_clip import TinyClip, TinyClipNetwork, TowerConfig, load_tiny_clip, resize, transformer
from ..encoders.words import Vocabulary
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, fill, save_weights, shape_of
from .freezing import freeze_tiny_clip

KIND = "tiny-clip"
FIT = 10.0  # the cosine's unit, as in the reward `alignment`
STATISTICS = 2 * LowLevel.dim  # Q
FAR = 5.0  # deviations after which a statistic says no more


@dataclass(frozen=True)
class HeadConfig:
    """Shape of the heads."""

    width: int = 64  # W, a multiple of 32
    depth: int = 1  # blocks
    members: int = 3  # M


class Head(nn.Module):
    """Patches, words, statistics and the product of both vectors to one number, (B,)."""

    def __init__(self, towers: TowerConfig, config: HeadConfig):
        super().__init__()
        width = config.width
        self.picture, self.words = nn.Linear(towers.width, width), nn.Linear(towers.width, width)
        self.drawn = nn.Linear(STATISTICS, width)
        self.pool = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = transformer(width, width // 32, config.depth)
        self.score, self.fit = nn.Linear(width, 1), nn.Linear(towers.features, 1, bias=False)
        self.style = nn.Linear(STATISTICS, 1, bias=False)
        nn.init.normal_(self.score.weight, std=1 / (width + 1))  # ImageReward's: all scores begin near 0
        nn.init.zeros_(self.score.bias)
        nn.init.constant_(self.fit.weight, 1 / FIT)
        nn.init.zeros_(self.style.weight)

    def forward(self, picture: Tensor, words: Tensor, drawn: Tensor, fit: Tensor) -> Tensor:
        pool = self.pool.expand(len(picture), -1, -1)
        h = torch.cat([pool, self.words(words), self.picture(picture), self.drawn(drawn)[:, None]], 1)
        return (self.score(self.blocks(h)[:, 0]) + self.fit(fit) + self.style(drawn))[:, 0]


def statistics(images: Tensor) -> Tensor:
    """(B, 3, S, S) in [0, 1] -> (B, Q)."""
    found = LowLevel().features(images)
    return torch.cat([found, found.abs().add(1e-4).log()], 1)


class TinyClipScorerNetwork(nn.Module):
    """(B, 3, S, S) and (B, L) word numbers -> (M, B)."""

    mean: Tensor
    std: Tensor
    drawn_mean: Tensor
    drawn_std: Tensor

    def __init__(self, towers: TinyClipNetwork, config: HeadConfig):
        super().__init__()
        self.config, self.towers = config, towers
        self.heads = nn.ModuleList(Head(towers.config, config) for _ in range(config.members))
        self.register_buffer("mean", torch.zeros(config.members))
        self.register_buffer("std", torch.ones(config.members))
        self.register_buffer("drawn_mean", torch.zeros(STATISTICS))
        self.register_buffer("drawn_std", torch.ones(STATISTICS))

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        return self.judge(self.towers.image.states(images), self.towers.text.states(words), statistics(images))

    def judge(self, picture: Tensor, said: Tensor, drawn: Tensor) -> Tensor:
        """(M, B) from the towers' states (B, N + 1, D) and (B, L + 1, D), and the statistics (B, Q)."""
        vectors = self.towers.image.project(picture[:, 0]), self.towers.text.project(said[:, 0])
        fit = FIT * F.normalize(vectors[0], dim=-1) * F.normalize(vectors[1], dim=-1)  # (B, F), sums to FIT cosines
        drawn = ((drawn - self.drawn_mean) / self.drawn_std).clamp(-FAR, FAR)
        return torch.stack([head(picture, said, drawn, fit) for head in self.heads])

    def standardise(self, drawn: Tensor) -> None:
        """Mean and deviation of the statistics (N, Q) of training pictures."""
        self.drawn_mean.copy_(drawn.mean(0))
        self.drawn_std.copy_(drawn.std(0).clamp_min(1e-4))


class TinyClipScorer:
    """Prompts must use the towers' words."""

    kind = KIND
    differentiable = True

    def __init__(self, network: TinyClipScorerNetwork, vocabulary: Vocabulary, recipe: Any = None, digest: str = ""):
        self.network, self.vocabulary, self.recipe = network, vocabulary, recipe or {}
        self.size = network.towers.config.size
        self.provenance = Provenance("preference on tiny-clip", digest, f"bilinear-antialias-{self.size}")

    @classmethod
    def new(cls, clip: TinyClip, config: HeadConfig, seed: int = 0) -> TinyClipScorer:
        """Fresh heads on towers as they are; the towers become the scorer's own and may be trained."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(TinyClipScorerNetwork(clip.network, config), clip.vocabulary)

    def freeze(self, share: float) -> None:
        """See freezing.py."""
        freeze_tiny_clip(self.network.towers, share)

    def read(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, S, S): the whole picture, as the towers take it."""
        return resize(images, self.size)

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Take the scale of the statistics from training pictures (B, 3, H, W), some hundreds of them."""
        self.network.standardise(statistics(self.read(images)))

    def logits(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (M, B). Raises UnknownName for a word that the towers do not know."""
        device = device_of(self.network)
        words = self.vocabulary.encode([p.text for p in prompts]).to(device)
        return self.network(self.read(images).to(device), words)

    def write(self, path: str | Path, half: bool = False) -> str:
        """One safetensors file, towers included; returns its sha256."""
        description = {
            "kind": "preference",
            "scorer": KIND,
            "network": asdict(self.network.config),
            "towers": asdict(self.network.towers.config),
            "words": self.vocabulary.words,
            "length": self.vocabulary.length,
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description, half)

    @classmethod
    def of(cls, tensors: dict[str, Tensor], said: dict[str, Any], origin: str, digest: str) -> TinyClipScorer:
        """From a file's content; raises TastemakerError where it does not fit."""
        config = shape_of(HeadConfig, said, origin, ("towers", "words", "length"))
        towers = shape_of(TowerConfig, {"network": said["towers"]}, origin)
        vocabulary = Vocabulary(said["words"], said["length"])
        network = TinyClipScorerNetwork(TinyClipNetwork(towers, len(vocabulary), vocabulary.length), config)
        fill(network, tensors, origin)
        return cls(network.eval().requires_grad_(False), vocabulary, said.get("recipe"), digest)


class FrozenTowers:
    """The same heads on towers that stay as they are: a picture and a prompt go through their tower once, not once a
    step. What is kept of a picture is one float16 row: its statistics, then its states."""

    def __init__(self, scorer: TinyClipScorer):
        self.scorer, self.network = scorer, scorer.network
        self.said: dict[str, Tensor] = {}  # (L + 1, D) by a prompt's words

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, Q + (N + 1) D) float16."""
        square = self.scorer.read(images).to(device_of(self.network))
        states = self.network.towers.image.states(square)
        return torch.cat([statistics(square), states.flatten(1)], 1).half().cpu()

    def logits(self, rows: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, Q + (N + 1) D) -> (M, B). Raises UnknownName for a word that the towers do not know."""
        drawn, states = rows.float().split([STATISTICS, rows.shape[1] - STATISTICS], 1)
        said = torch.stack([self._states(p.text) for p in prompts])
        return self.network.judge(states.unflatten(1, (-1, self.network.towers.config.width)), said, drawn)

    @torch.no_grad()
    def _states(self, text: str) -> Tensor:
        if text not in self.said:
            words = self.scorer.vocabulary.encode([text]).to(device_of(self.network))
            self.said[text] = self.network.towers.text.states(words)[0]
        return self.said[text]


def new_on(path: str, config: HeadConfig, seed: int) -> TinyClipScorer:
    """On the shipped towers, or on those that `train clip` wrote at `path`."""
    return TinyClipScorer.new(load_tiny_clip(path or None), config, seed)
