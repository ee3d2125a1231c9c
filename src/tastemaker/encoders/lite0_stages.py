"""What EfficientNet-Lite0 sees on its way: mean and spread over the picture of the maps behind every stage.

The last features say what a picture shows, the early ones how it is drawn: grain, edges, smeared texture. Means and
standard deviations of feature maps are what texture and quality measures are made of (Gatys et al. 2015, arXiv
1505.07376; Ding et al. 2020, arXiv 2004.07728). Letters: B batch, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .efficientnet_lite0 import STAGES, EfficientNetLite0, Network, square
from .protocol import check_images

SIDES = (128, 224)  # pixels; the network was trained at the second
ENDS = tuple(sum(stage[0] for stage in STAGES[: k + 1]) - 1 for k in range(len(STAGES)))  # last block of each stage
CHANNELS = (32, *(stage[-1] for stage in STAGES), 1280)


def maps(network: Network, x: Tensor) -> Iterator[Tensor]:
    """(B, C, H, W) behind the stem, each stage and the head. x: pixels in [-1, 1]."""
    x = F.relu6(network._bn0(network._conv_stem(x)))
    yield x
    for k, block in enumerate(network._blocks):
        x = block(x)
        if k in ENDS:
            yield x
    yield F.relu6(network._bn1(network._conv_head(x)))


def moments(map_: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 2 C): mean and standard deviation over the picture, with a gradient where it is flat."""
    return torch.cat([map_.mean((2, 3)), (map_.var((2, 3), correction=0) + 1e-8).sqrt()], 1)


class Lite0Stages:
    """An `Encoder`. sides: the picture is resized to each of these squares in turn."""

    name = "efficientnet-lite0-stages"

    def __init__(self, encoder: EfficientNetLite0 | None = None, sides: Sequence[int] = SIDES):
        self.encoder, self.sides = encoder or EfficientNetLite0(), tuple(sides)
        self.network = self.encoder.network
        self.dim = 2 * sum(CHANNELS) * len(self.sides)
        how = f"whole picture to squares of {', '.join(map(str, self.sides))}, antialiased bicubic; 2 x - 1"
        self.provenance = replace(self.encoder.provenance, preprocessing=how)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, dim) float32."""
        weight = self.network._fc.weight
        images = check_images(images).to(weight.device)
        with torch.autocast(weight.device.type, enabled=False):
            return torch.cat(
                [moments(m) for side in self.sides for m in maps(self.network, square(images, side) * 2 - 1)], 1
            )
