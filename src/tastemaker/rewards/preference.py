"""The learned reward: what people prefer, as `train reward-model` found it; one model or several as an ensemble.

    tm.load_reward("preference")                # the shipped one, of simulated raters on the embedded world
    tm.load_reward("preference:RUN")            # a run's folder, or its model.safetensors
    tm.load_reward("preference:RUN_A+RUN_B")    # their members together

A model has M members. Each member's scores are standardised by its mean and deviation on the validation pictures of
its training (ImageReward's constants, arXiv 2304.05977, are such figures too), so that members can be averaged; the
score is their mean and `spread` their standard deviation, which says where they disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..protocols import Prompt
from ..records import Provenance
from ..weights import file_hash, load_weights, shipped
from . import blip_scorer, feature_scorer, tiny_clip_scorer

KIND = "preference"


class Scorer(Protocol):
    """A network with `mean` and `std` (M,) of its logits on the validation pictures."""

    @property
    def network(self) -> nn.Module: ...
    @property
    def differentiable(self) -> bool: ...
    @property
    def provenance(self) -> Provenance: ...
    def logits(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor: ...  # (M, B)


SCORERS: Mapping[str, Callable[[dict[str, Tensor], dict[str, Any], str, str], Scorer]] = {
    tiny_clip_scorer.KIND: tiny_clip_scorer.TinyClipScorer.of,
    feature_scorer.KIND: feature_scorer.FeatureScorer.of,
    blip_scorer.KIND: blip_scorer.BlipScorer.of,
}


class Preference:
    """Differentiable. A difference of one is a standard deviation of the validation pictures."""

    name = KIND
    range = (-math.inf, math.inf)

    def __init__(self, scorers: Sequence[Scorer]):
        self.scorers = list(scorers)
        self.differentiable = all(s.differentiable for s in self.scorers)
        parts = [s.provenance for s in self.scorers]
        self.provenance = Provenance(*("+".join(dict.fromkeys(p)) for p in zip(*map(_facts, parts))))

    def members(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(M, B): the standardised score of each member of every model."""
        return torch.cat([standardised(s, s.logits(images, prompts)) for s in self.scorers])

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,): the members' mean."""
        return self.members(images, prompts).mean(0)

    def spread(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,): the members' standard deviation; 0 where there is one member."""
        return self.members(images, prompts).std(0, correction=0)

    def doubt(self, images_a: Tensor, images_b: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,): the members' standard deviation of score(a) - score(b); large where a vote would teach the most."""
        return (self.members(images_a, prompts) - self.members(images_b, prompts)).std(0, correction=0)


def _facts(provenance: Provenance) -> tuple[str, str, str]:
    return provenance.model, provenance.weight_hash, provenance.preprocessing


def standardised(scorer: Scorer, logits: Tensor) -> Tensor:
    """(M, B) less each member's mean, over its deviation."""
    mean, std = scorer.network.get_buffer("mean"), scorer.network.get_buffer("std")
    return (logits.float() - mean[:, None]) / std[:, None]


def load_preference(where: str = "") -> Preference:
    """`RUN`, `FILE.safetensors`, or several with + between; nothing: the shipped one.

    Raises TastemakerError where a file is missing or is not a preference model.
    """
    paths: Sequence[str | Path] = where.split("+") if where else [shipped(KIND)]
    return Preference([load_scorer(path) for path in paths])


def load_scorer(path: str | Path) -> Scorer:
    """A run's folder or a file. Raises as `load_preference` does."""
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    tensors, said = load_weights(path)
    if said.get("kind") != KIND or said.get("scorer") not in SCORERS:
        raise TastemakerError(
            f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'; `tastemaker train reward-model` "
            "writes one"
        )
    return SCORERS[said["scorer"]](tensors, said, str(path), file_hash(path))
