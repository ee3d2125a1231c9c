"""What a frozen feature space is, and features of many pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..records import Provenance


@runtime_checkable
class Encoder(Protocol):
    """Pictures in, one vector each out. Frozen, but differentiable in the pictures, preprocessing included."""

    name: str
    dim: int  # D
    provenance: Provenance

    def features(self, images: Tensor) -> Tensor: ...  # (B, 3, H, W) in [0, 1] -> (B, D) float32


@torch.no_grad()
def feature_batches(encoder: Encoder, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """(b, D) float32 on the host for each batch of images (b, 3, H, W) in [0, 1]; holds one batch at a time.

    Raises TastemakerError where the encoder gives another shape than it promises.
    """
    for images in batches:
        features = encoder.features(check_images(images))
        if features.shape != (len(images), encoder.dim):
            raise TastemakerError(
                f"encoder '{encoder.name}' must give ({len(images)}, {encoder.dim}) features, "
                f"it gave shape {tuple(features.shape)}"
            )
        yield features.float().cpu()


def extract(encoder: Encoder, batches: Iterable[Tensor]) -> Tensor:
    """(N, D) float32, all features of an iterator of image batches, in its order."""
    return torch.cat([torch.empty(0, encoder.dim), *feature_batches(encoder, batches)])


def check_images(images: Tensor) -> Tensor:
    """Images (B, 3, H, W); raises TastemakerError on any other shape or on integer pixels."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise TastemakerError(
            f"expected float images (B, 3, H, W) in [0, 1], got {images.dtype} of shape {tuple(images.shape)}"
        )
    return images
