"""The best weights of a training that is judged by a held-out loss, kept beside its state."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .optimise import TrainingState, trainable


class Patience(Protocol):
    @property
    def validate_every(self) -> int: ...  # steps between two validations
    @property
    def patience(self) -> int: ...  # validations without a better loss after which training ends


@dataclass
class Selection:
    """The training state and the best weights so far: one thing that is put away and taken up again."""

    state: TrainingState
    loss: float = math.inf  # the best validation loss
    best_step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return self.state.step

    def stale(self, config: Patience) -> bool:
        """No better loss for `patience` validations."""
        return self.step - self.best_step >= config.patience * config.validate_every

    def take(self, loss: float) -> None:
        """Keep the weights that are in the network now if their loss is the lowest."""
        if loss < self.loss:
            self.loss, self.best_step = loss, self.step
            self.weights = {n: p.detach().clone() for n, p in trainable(self.state.network).items()}

    def keep_best(self) -> None:
        """Put the best weights into the network for good: the training is over."""
        with torch.no_grad():
            for name, p in trainable(self.state.network).items():
                p.copy_(self.weights.get(name, p))

    def state_dict(self) -> dict[str, Any]:
        best = {"loss": self.loss, "step": self.best_step, "weights": self.weights}
        return {"training": self.state.state_dict(), "best": best}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.state.load_state_dict(saved["training"])
        best = saved["best"]
        device = next(self.state.network.parameters()).device
        self.loss, self.best_step = best["loss"], best["step"]
        self.weights = {name: value.to(device) for name, value in best["weights"].items()}
