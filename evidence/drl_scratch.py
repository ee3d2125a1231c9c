"""A discriminator of drl.py whose encoder learned from nothing: convolutions that see real and generated pictures and
are told which is which. In the paper such a one is nearly always right and the worst reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tastemaker.algorithms.discriminator import logistic
from tastemaker.data.batches import Dataset
from tastemaker.devices import best_device, place
from tastemaker.picture_bytes import as_bytes, from_bytes
from tastemaker.randomness import mix
from tastemaker.records import Prompt, Provenance
from tastemaker.sampling import sample

STEPS, BATCH, HELD_OUT = 400, 32, 0.2


def network() -> nn.Sequential:
    """(B, 3, 64, 64) in [0, 1] -> (B, 1)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 96), (96, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(128, 128, 3, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(128, 1))  # fmt: skip


class Scratch:
    """A reward: the logit. accuracy: on pairs that it did not learn from."""

    name, differentiable, range = "scratch", True, (-math.inf, math.inf)
    provenance = Provenance("convolutions trained from nothing")

    def __init__(self, network: nn.Module, accuracy: float):
        self.network, self.accuracy = network.eval().requires_grad_(False), accuracy

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return self.network(images)[:, 0]


def scratch(generator: Any, real: Dataset, count: int, file: Path) -> Scratch:
    """Trained on `count` pairs, or read from the file."""
    file = file.with_suffix(".safetensors")
    made = network()
    if not file.is_file():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = network()
        accuracy = learn(made, *pairs(generator, real, count))
        save_file({**made.state_dict(), "accuracy": torch.tensor(accuracy)}, file)
    weights = load_file(file)
    accuracy = float(weights.pop("accuracy"))
    made.load_state_dict(weights)
    return place(Scratch(made, accuracy))


def pairs(generator: Any, real: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) of each kind, through 8 bits, for the same prompts."""
    pictures, prompts = zip(*(real[k] for k in range(count)))
    drawn = sample(generator, prompts, [mix(7, k) for k in range(count)], guidance=1.0, batch=32)
    return from_bytes(as_bytes(torch.stack(pictures))), from_bytes(as_bytes(drawn))


def learn(made: nn.Module, real: Tensor, drawn: Tensor) -> float:
    """Logistic loss with Adam; -> accuracy on the last fifth of the pairs."""
    last, device = int((1 - HELD_OUT) * len(real)), best_device()
    made, real, drawn = made.to(device), real.to(device), drawn.to(device)
    optimiser = torch.optim.Adam(made.parameters(), 1e-3)
    rows = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        chosen = torch.randint(last, (BATCH,), generator=rows)
        loss = logistic(made(real[chosen])[:, 0], made(drawn[chosen])[:, 0]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right = torch.cat([made(real[last:]) > 0, made(drawn[last:]) < 0])
    return float(right.float().mean())
