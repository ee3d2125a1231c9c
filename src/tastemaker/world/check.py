"""Is the prompt true of the picture? GenEval's rules over the world's own detector.

Two detectors of one architecture and other seeds: `detector-a` makes labels, `detector-b` makes final scores, so no
number is read off the very network that a model learned from. Neither is a reward unless a run says so.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..devices import place
from ..errors import TastemakerError
from ..object_rules import Verdict, judge
from ..records import Prompt, Provenance
from ..weights import file_hash, shipped
from .detector import Detector, load_detector
from .faults import Detections, share_of_facts

LABELS, SCORES, RATERS = "detector-a", "detector-b", "detector-r"


@functools.cache
def detector(name: str = SCORES) -> Detector:
    return place(load_detector(shipped(name)))


def require_specs(prompts: Sequence[Prompt]) -> None:
    """Raise TastemakerError for a prompt without a spec."""
    for prompt in prompts:
        if prompt.spec is None:
            raise TastemakerError(f"'{prompt.text}' has no spec to check; read prompts from a GenEval metadata file")


def detected(images: Tensor, prompts: Sequence[Prompt], name: str, batch: int = 128) -> list[Detections]:
    """What it finds in each of (B, 3, H, W) in [0, 1]. Raises TastemakerError for a prompt without a spec."""
    require_specs(prompts)
    return [d for i in range(0, len(images), batch) for d in detector(name).detect(images[i : i + batch])]


def check(images: Tensor, prompts: Sequence[Prompt], name: str = SCORES, batch: int = 128) -> list[Verdict]:
    """The verdict on each of (B, 3, H, W) in [0, 1]. Raises TastemakerError for a prompt without a spec."""
    found = detected(images, prompts, name, batch)
    return [judge(detections, prompt.spec or {}) for detections, prompt in zip(found, prompts)]


class ByDetector:
    """What the rewards that ask a detector have in common."""

    differentiable = False
    range = (0.0, 1.0)

    def __init__(self, name: str, detector_name: str):
        self.name, self.detector = name, detector_name
        self.provenance = Provenance(detector_name, file_hash(shipped(detector_name)), "bilinear-antialias-64")


class WorldCheck(ByDetector):
    """The check as a reward: 1 where the picture is correct, 0 where not. For evaluation, and for labels."""

    def __init__(self, name: str = SCORES):
        super().__init__(f"check-{name[-1]}", name)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return torch.tensor([float(v.correct) for v in check(images, prompts, self.detector)])


class FactCheck(ByDetector):
    """How much of the prompt is right, fact by fact (faults.py), in [0, 1]: labels where right and wrong are too
    coarse, since nothing follows from pictures that are all wrong."""

    def __init__(self, name: str = LABELS):
        super().__init__(f"facts-{name[-1]}", name)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        found = detected(images, prompts, self.detector)
        return torch.tensor([share_of_facts(seen, p.spec or {}) for seen, p in zip(found, prompts)])


class Alignment(ByDetector):
    """How much of the prompt a detector finds true: the share of clauses that hold, in [0, 1]."""

    def __init__(self, detector_name: str = RATERS):
        super().__init__("seen-alignment", detector_name)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return torch.tensor([v.satisfied for v in check(images, prompts, self.detector)])
