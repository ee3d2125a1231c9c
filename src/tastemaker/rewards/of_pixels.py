"""What rewards with a network share: a view of the picture, then the network on its pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from ..encoders.pixels import View
from ..records import Prompt
from ..weights import device_of


class OfPixels(ABC):
    """Rewards of equal views are given the same pixels by `sampling.score_batch`, made once.

    `network.to(device)` moves a reward; pictures follow it.
    """

    view: View
    network: nn.Module

    @abstractmethod
    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B,)."""

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,)."""
        return self.score_pixels(self.pixels(images), prompts)

    def pixels(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, S, S) on the network's device."""
        return self.view(images.to(device_of(self.network)))

    def score_pictures(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Tensor:
        """Opened files of any mode, converted to RGB where the release does it: (B,)."""
        return self.score_pixels(torch.stack([self.view.open(picture) for picture in pictures]), prompts)
