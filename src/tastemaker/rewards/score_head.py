"""The head that LAION's aesthetic predictor and ImageReward share: five linear layers without activations between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)


class ScoreHead(nn.Module):
    """(B, D) -> (B,). Dropout works in training only; keys are `layers.{0,2,4,6,7}`, as released."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        a, b, c, d, e = WIDTHS
        self.layers = nn.Sequential(
            nn.Linear(width, a), nn.Dropout(0.2), nn.Linear(a, b), nn.Dropout(0.2),
            nn.Linear(b, c), nn.Dropout(0.1), nn.Linear(c, d), nn.Linear(d, e),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).squeeze(-1)

    @torch.no_grad()
    def begin(self) -> None:
        """ImageReward's start: weights Normal(0, 1 / (D + 1)) with D the head's own input, biases 0."""
        std = 1 / (self.width + 1)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, std)
                layer.bias.zero_()
