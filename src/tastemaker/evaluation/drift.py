"""How pictures look, in numbers that a reward should not move by accident: brightness, saturation, contrast,
colourfulness, whiteness, sharpness. Trained generators drift here first, whatever their reward says. The first five
are those of DRL (arXiv 2606.19162, section I.3), whose colourfulness is ours over 255.

Images float32 (B, 3, H, W) in [0, 1]; every figure is float32 (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..encoders.low_level import luminance
from ..errors import TastemakerError
from ..records import Interval
from .intervals import paired_difference, unpaired_difference


def brightness(images: Tensor) -> Tensor:
    """Mean luminance, in [0, 1]."""
    return luminance(images).mean((1, 2))


def saturation(images: Tensor) -> Tensor:
    """Mean saturation of HSV, (max - min) / max per pixel and 0 on black, in [0, 1]."""
    high, low = images.amax(1), images.amin(1)
    return torch.where(high > 0, (high - low) / high.clamp_min(1e-12), 0.0).mean((1, 2))


def contrast(images: Tensor) -> Tensor:
    """Standard deviation of luminance over the picture (RMS contrast, Peli 1990), in [0, 0.5]."""
    return luminance(images).flatten(1).std(1, correction=0)


def colourfulness(images: Tensor) -> Tensor:
    """M of Hasler & Süsstrunk 2003 (Measuring colourfulness in natural images, section 7), on their scale of 8-bit
    values: 0 for greys, about 33 `moderately` and 109 `extremely` colourful."""
    red, green, blue = (255 * images).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], 1).flatten(2)  # (B, 2, H W)
    spread, shift = opponents.std(2, correction=0).norm(dim=1), opponents.mean(2).norm(dim=1)
    return spread + 0.3 * shift


def whiteness(images: Tensor) -> Tensor:
    """Mean of the smallest channel of each pixel, in [0, 1]: 1 is white, 0 has no white in any colour."""
    return images.amin(1).mean((1, 2))


def sharpness(images: Tensor) -> Tensor:
    """Variance of the Laplacian of luminance (Pech-Pacheco et al. 2000), on 8-bit values; depends on the size."""
    y = 255 * luminance(images)
    if min(y.shape[1:]) < 3:
        raise TastemakerError(f"sharpness needs pictures of at least 3 x 3 pixels, got {tuple(y.shape[1:])}")
    edges = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:] - 4 * y[:, 1:-1, 1:-1]
    return edges.flatten(1).var(1, correction=0)


Figure = Callable[[Tensor], Tensor]
OF_DRL: tuple[Figure, ...] = (brightness, saturation, contrast, colourfulness, whiteness)
FIGURES: tuple[Figure, ...] = (*OF_DRL, sharpness)


def figures(images: Tensor, which: Sequence[Figure] = FIGURES) -> dict[str, Tensor]:
    """Figures by name, each (B,). Raises TastemakerError where images are not (B, 3, H, W)."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise TastemakerError(f"expected images (B, 3, H, W) in [0, 1], got shape {tuple(images.shape)}")
    return {figure.__name__: figure(images.float()) for figure in which}


def paired_drift(before: Mapping[str, Any], after: Mapping[str, Any], prompts: Any) -> dict[str, Interval]:
    """after - before by figure, for two generators on the same prompts and seeds.

    before, after: what `figures` gives, each (B,); prompts (B,): ids, equal where pictures share a prompt.
    """
    return {name: paired_difference(after[name], before[name], prompts) for name in before}


def drift(
    before: Mapping[str, Any], before_prompts: Any, after: Mapping[str, Any], after_prompts: Any
) -> dict[str, Interval]:
    """after - before by figure, for two sets of pictures that share neither prompts nor seeds."""
    return {name: unpaired_difference(after[name], after_prompts, before[name], before_prompts) for name in before}
