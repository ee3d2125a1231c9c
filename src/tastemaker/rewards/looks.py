"""Several looks at a picture: copies of it, shifted, tinted and with noise, that a reward is averaged over.

A network on frozen features has a gradient that differs from picture to picture in detail that means nothing. The
mean over changed copies is the gradient of a smoother function (Smilkov et al. 2017, SmoothGrad, arXiv
1706.03825), and a discriminator that learned from such copies cannot go by detail below the noise (Zhao et al. 2020,
differentiable augmentation, arXiv 2006.10738), nor by a tint that every picture could take.
docs/discriminator.md says what that is worth to DRL. Letters: B pictures, H W.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import expect
from ..picture_bytes import as_bytes
from ..randomness import stream


@dataclass(frozen=True)
class Looks:
    """count: copies of each picture, 0 for the picture as it is; shift: the farthest, as a share of the sides; noise,
    and tint, by which a channel is moved as a whole: standard deviations, of pixels in [0, 1]."""

    count: int = 0
    noise: float = 0.05
    shift: float = 0.05
    tint: float = 0.15

    def __post_init__(self) -> None:
        expect(self.count >= 0, "a count of looks of at least 0", self.count)
        expect(min(self.noise, self.tint) >= 0, "noise and tint of at least 0", min(self.noise, self.tint))
        expect(0 <= self.shift < 1, "a shift in [0, 1)", self.shift)

    def copies(self, images: Tensor) -> Iterator[Tensor]:
        """(B, 3, H, W) in [0, 1] -> `count` times the same shape, past [0, 1] by noise and tint; or themselves, once.

        A copy depends on the picture's own bytes and on nothing else, so a picture has one score in any batch.
        """
        if not self.count:
            yield images
            return
        seeds = [zlib.crc32(image.numpy().tobytes()) for image in as_bytes(images.detach()).cpu()]
        for number in range(self.count):
            yield self._copy(images, [stream(seed, branch=number, purpose="look") for seed in seeds])

    def _copy(self, images: Tensor, draws: Sequence[np.random.Generator]) -> Tensor:
        height, width = images.shape[2:]
        most = round(self.shift * height), round(self.shift * width)
        wide = F.pad(images, (most[1], most[1], most[0], most[0]), mode="replicate")
        starts = [[int(draw.integers(2 * m + 1)) for m in most] for draw in draws]
        moved = torch.stack([w[:, y : y + height, x : x + width] for w, (y, x) in zip(wide, starts)])
        noise = np.stack([draw.standard_normal(images.shape[1:], np.float32) for draw in draws])
        tint = np.stack([draw.standard_normal((3, 1, 1), np.float32) for draw in draws])
        return moved + torch.from_numpy(self.noise * noise + self.tint * tint).to(images)


ONE = Looks()  # the picture as it is
