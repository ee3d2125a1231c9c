"""An aesthetic score on SigLIP's features, of our own making: one linear layer, fitted in closed form to marks.

    score = b + w . f / |f|,   w, b = ridge regression of the marks on the features of length 1

One file holds w, b and where they came from; fit it on marks that you may use. The prompt is not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..encoders.official import weight_file
from ..encoders.siglip import Siglip, load_siglip
from ..errors import TastemakerError
from ..records import Prompt, Provenance
from ..weights import file_hash, load_weights, save_weights
from .of_pixels import OfPixels

KIND = "siglip-aesthetic"
FILE = "aesthetic-head.safetensors"


@dataclass(frozen=True)
class LinearHead:
    """weight (D,), bias (); about: what it was fitted on."""

    weight: Tensor
    bias: Tensor
    about: str = ""

    def __call__(self, features: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        weight, bias = (part.to(features.device, features.dtype) for part in (self.weight, self.bias))
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(features, dim=-1) @ weight + bias

    def write(self, path: str | Path) -> str:
        """One safetensors file; returns its sha256."""
        return save_weights(path, {"weight": self.weight, "bias": self.bias}, {"kind": KIND, "about": self.about})


def fit_head(features: Tensor, marks: Tensor, ridge: float = 1e-3, about: str = "") -> LinearHead:
    """features (N, D) of any length, marks (N,): least squares with `ridge` N |w|^2 added, in float64.

    Raises TastemakerError where the numbers differ, are fewer than 2, or a value is not finite.
    """
    if features.ndim != 2 or marks.shape != features.shape[:1] or len(marks) < 2:
        raise TastemakerError(
            f"expected features (N, D) with N >= 2 marks (N,), got {tuple(features.shape)} and {tuple(marks.shape)}"
        )
    if not (features.isfinite().all() and marks.isfinite().all()):
        raise TastemakerError("features and marks must be finite; leave out the pictures that have no mark")
    x, y = F.normalize(features.double(), dim=-1), marks.double()
    centre, middle = x.mean(0), y.mean()
    x = x - centre
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.T @ (y - middle))
    return LinearHead(weight.float(), (middle - centre @ weight).float(), about)


class SiglipAesthetic(OfPixels):
    """Differentiable; on the scale of the marks that the head was fitted to."""

    name = KIND
    differentiable = True
    range = (-math.inf, math.inf)

    def __init__(self, siglip: Siglip, head: LinearHead, weight_hash: str = ""):
        if head.weight.shape != (siglip.dim,):
            raise TastemakerError(f"the head reads {len(head.weight)} features, but this SigLIP gives {siglip.dim}")
        self.siglip, self.head, self.view, self.network = siglip, head, siglip.view, siglip.network
        said = siglip.provenance
        hashes = f"{weight_hash}+{said.weight_hash}".strip("+")
        self.provenance = Provenance(f"{KIND} on {said.model}", hashes, said.preprocessing)

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""
        return self.head(self.siglip.of_pixels(pixels))


def load_head(path: str | Path) -> LinearHead:
    """Raises TastemakerError for a file of another kind."""
    tensors, said = load_weights(path)
    if said.get("kind") != KIND or set(tensors) != {"weight", "bias"}:
        raise TastemakerError(
            f"{path} holds '{said.get('kind')}', expected the head '{KIND}' as `LinearHead.write` does"
        )
    return LinearHead(tensors["weight"], tensors["bias"], said.get("about", ""))


def load_siglip_aesthetic(folder: str | Path, siglip: str | Path | None = None) -> SiglipAesthetic:
    """A folder with aesthetic-head.safetensors and, in it or in its folder `siglip`, the SigLIP that transformers
    saves. siglip: that folder, where it lies elsewhere; then `folder` may be the head's file."""
    folder = Path(folder)
    file = weight_file(folder, (FILE,), "the SigLIP aesthetic head")
    around = file.parent
    within = around / "siglip" if (around / "siglip").is_dir() else around
    return SiglipAesthetic(load_siglip(siglip or within), load_head(file), file_hash(file))
