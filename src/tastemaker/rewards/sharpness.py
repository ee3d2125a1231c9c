"""Sharpness without weights: how much of a picture's fine contrast is edges, less what is noise.

Per pixel the structure tensor J (Gaussian window of 2 pixels) of the luminance has eigenvalues a >= b: their sum is
the gradient's energy, (a - b) / (a + b) its coherence, 1 on an edge and near 0 in noise. Following the idea of
Zhu & Milanfar (IEEE Trans. Image Processing 19(12), 2010), energy counts by its coherence, here to the fourth power:

    C_s   = mean over pixels of (a - b)^4 / (a + b)^3, of the picture smoothed by s pixels
    N     = Immerkaer's estimate of the noise's standard deviation (Comput. Vis. Image Underst. 64(2), 1996)
    score = log C_0 / 2 + 2 log (C_0 / C_1) - log (1 + (N / 0.03)^2)

The first term asks for edges with contrast, the second for narrow ones, whatever their contrast; the last keeps
strong noise from passing for detail. The constants were set on degraded pictures, without any human rating.
Scales are pixels: compare pictures of one size. Letters: B batch, H W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..records import Prompt, Provenance

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
WINDOW, COARSE = 2.0, 1.0  # pixels
FLOOR = 1e-6  # energy of a flat picture, so that its logarithm is finite
NOISE = 0.03  # standard deviation, in [0, 1] units, from which noise costs more than log 2
IMMERKAER = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))


class Sharpness:
    """Higher is sharper; a flat picture has log 1e-6 / 2, about -6.9; sharp pictures lie around -2."""

    name = "sharpness"
    differentiable = True
    range = (-math.inf, math.inf)
    provenance = Provenance("sharpness", preprocessing="1: BT.601 luminance at native size")

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,); any size; the prompts are not read."""
        grey = luminance(images)
        fine, coarse = edge_energy(grey), edge_energy(smooth(grey, COARSE))
        energy, narrow = torch.log(fine + FLOOR), torch.log((fine + FLOOR) / (coarse + FLOOR))
        return energy / 2 + 2 * narrow - torch.log1p((noise_level(grey) / NOISE) ** 2)


def luminance(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    return (images * images.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


def edge_energy(grey: Tensor) -> Tensor:
    """Mean over pixels of energy times coherence^4, (B, 1, H, W) -> (B,)."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    tensor = smooth(torch.cat([gx**2 - gy**2, 2 * gx * gy, gx**2 + gy**2], 1), WINDOW)  # (B, 3, H, W)
    difference, total = tensor[:, 0] ** 2 + tensor[:, 1] ** 2, tensor[:, 2]  # (a - b)^2, a + b
    return (difference**2 / (total**3 + 1e-18)).flatten(1).mean(1)


def noise_level(grey: Tensor) -> Tensor:
    """Standard deviation of white noise, (B, 1, H, W) -> (B,); structure that is straight over 3 pixels cancels."""
    kernel = grey.new_tensor(IMMERKAER).view(1, 1, 3, 3)
    response = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel)
    return math.sqrt(math.pi / 2) / 6 * response.abs().flatten(1).mean(1)


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels, borders replicated, (B, C, H, W) -> (B, C, H, W)."""
    radius = math.ceil(3 * sigma)
    places = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.softmax(-(places**2) / (2 * sigma**2), 0)
    channels = images.shape[1]
    across = kernel.expand(channels, 1, 1, -1)
    out = F.conv2d(F.pad(images, (radius, radius, 0, 0), mode="replicate"), across, groups=channels)
    down = across.transpose(2, 3)
    return F.conv2d(F.pad(out, (0, 0, radius, radius), mode="replicate"), down, groups=channels)
