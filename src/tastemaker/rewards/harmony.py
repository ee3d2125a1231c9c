"""Colour harmony without weights: few hues that go together, neither washed out nor a garish clutter.

Colour is the hexagon's plane u = R - (G + B) / 2, v = sqrt(3) / 2 (G - B); its angle is the hue, its length the
chroma c in [0, 1]. score = colour x (0.6 hues + 0.4 calm), with three parts in [0, 1]:

    hues     exp(-D / 8 degrees). D: the mean arc from each pixel's hue, weighted by c, to the nearest sector of the
             best fitting harmonic template, over seven templates and 24 rotations (Cohen-Or, Sorkine, Gal, Leyvand &
             Xu, Color Harmonization, SIGGRAPH 2006, Eqs. 1-3), read off a histogram of 48 hues with linear shares.
             The minimum is soft (0.3 degrees), and a template costs 8 degrees times the share of the circle that it
             covers, so that wide ones, into which almost anything fits, do not win by default.
    colour   m exp(1 - m), m = mean c / 0.3: 0 when grey, low when washed out, 1 at m = 1, low again when garish.
    calm     1 / (1 + (E / 0.2)^4). E: root mean square step of (u, v) between neighbours, large in clutter of many
             colours and in coloured noise; the fourth power leaves ordinary edges alone, so that blur gains little.

Pixels with little chroma hardly count for the hues; a picture without any colour scores 0.
Letters: B batch, H W, K hue bins, T templates with their rotations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..records import Prompt, Provenance

# (centre, width) of each sector in degrees: Fig. 2 of the paper, without N, which holds grey pictures only
TEMPLATES: dict[str, tuple[tuple[float, float], ...]] = {
    "i": ((0, 18),),
    "V": ((0, 93.6),),
    "L": ((0, 18), (90, 79.2)),
    "I": ((0, 18), (180, 18)),
    "T": ((0, 180),),
    "Y": ((0, 93.6), (180, 18)),
    "X": ((0, 93.6), (180, 93.6)),
}
BINS, ROTATIONS = 48, 24
HUES, CALM = 0.6, 0.4  # weights
SPREAD, SOFT, WIDTH_COST = 8.0, 0.3, 8.0  # degrees, the last per whole circle
BEST, CLUTTER = 0.3, 0.2  # chroma


class Harmony:
    """Higher is more harmonious, in [0, 1]."""

    name = "harmony"
    differentiable = True
    range = (0.0, 1.0)
    provenance = Provenance("harmony", preprocessing="1: hexagon hue and chroma at native size")

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,); any size; the prompts are not read."""
        plane = opponent(images)
        hues = torch.exp(-disharmony(hue_histogram(plane)) / SPREAD)
        amount = chroma(plane).flatten(1).mean(1) / BEST
        calm = 1 / (1 + (step_energy(plane) / CLUTTER**2) ** 2)
        return amount * torch.exp(1 - amount) * (HUES * hues + CALM * calm)


def opponent(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 2, H, W): u and v."""
    red, green, blue = images.unbind(1)
    return torch.stack([red - (green + blue) / 2, math.sqrt(3) / 2 * (green - blue)], 1)


def chroma(plane: Tensor) -> Tensor:
    """(B, 2, H, W) -> (B, H, W); smooth at grey, where it is 0."""
    return (plane.pow(2).sum(1) + 1e-6).sqrt() - 1e-3


def hue_histogram(plane: Tensor) -> Tensor:
    """Mean chroma per hue, each pixel shared linearly by its two nearest bins, (B, 2, H, W) -> (B, K)."""
    coloured = plane.pow(2).sum(1) > 1e-8  # elsewhere the angle, and its gradient, mean nothing
    u, v = torch.where(coloured, plane[:, 0], 1.0), torch.where(coloured, plane[:, 1], 0.0)
    place = (torch.atan2(v, u) * (BINS / (2 * math.pi))).flatten(1)  # (B, H W) in bins
    lower = place.detach().floor()
    weight = chroma(plane).flatten(1)
    upper_share = place - lower
    row = torch.arange(len(plane), device=plane.device)[:, None] * BINS
    bins = torch.stack([lower, lower + 1]).long() % BINS + row  # (2, B, H W)
    shares = torch.stack([weight * (1 - upper_share), weight * upper_share])
    sums = plane.new_zeros(len(plane) * BINS).index_add(0, bins.flatten(), shares.flatten())
    return sums.view(-1, BINS) / place.shape[1]


def disharmony(histogram: Tensor) -> Tensor:
    """Mean arc in degrees to the best template, (B, K) -> (B,); 0 where there is no colour."""
    total = histogram.sum(1)
    shares = histogram / (total + 1e-3)[:, None]
    distance, width = (table.to(histogram) for table in template_table())
    cost = shares @ distance.T + WIDTH_COST * width * shares.sum(1, keepdim=True)  # (B, T)
    return SOFT * (math.log(cost.shape[1]) - torch.logsumexp(-cost / SOFT, 1))


@cache
def template_table() -> tuple[Tensor, Tensor]:
    """(degrees from each bin to the nearest sector (T, K), width of all sectors as a share of the circle (T,))."""
    hues = torch.arange(BINS) * (360 / BINS)
    rows, widths = [], []
    for sectors in TEMPLATES.values():
        for rotation in range(ROTATIONS):
            turned = [(centre + rotation * 360 / ROTATIONS, width) for centre, width in sectors]
            rows.append(torch.stack([arc_outside(hues, c, w) for c, w in turned]).amin(0))
            widths.append(sum(width for _, width in sectors) / 360)
    return torch.stack(rows), torch.tensor(widths)


def arc_outside(hues: Tensor, centre: float, width: float) -> Tensor:
    """Degrees from each hue to the border of a sector, 0 inside."""
    apart = (hues - centre + 180) % 360 - 180
    return (apart.abs() - width / 2).clamp_min(0)


def step_energy(plane: Tensor) -> Tensor:
    """Mean squared step of (u, v) between neighbouring pixels, (B, 2, H, W) -> (B,)."""
    padded = F.pad(plane, (0, 1, 0, 1), mode="replicate")
    across, down = padded[..., :-1, 1:] - plane, padded[..., 1:, :-1] - plane
    return (across**2 + down**2).sum(1).flatten(1).mean(1)
