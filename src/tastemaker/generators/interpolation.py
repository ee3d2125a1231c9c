"""Between a generator and what it was tuned to: v = v_base + w (v_tuned - v_base).

w = 0 is the base and w = 1 the tuned generator, to the last bit; between them the reward is followed less than in the
training, above 1 more. Where tuning is KL-regularised the tuned velocity is v_base - sigma^2 / 2 a with an adjoint a
that is proportional to lambda (DRL, arXiv 2606.19162, section 3), so w stands for another lambda, w lambda, as far as
the adjoint stays what it was: exactly so for Gaussian data and a linear reward. Guidance is applied to the sum. One
evaluation costs one of each network.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TastemakerError, expect
from ..protocols import Condition


class Interpolated(nn.Module):
    """Both networks behind one forward, which answers with a velocity."""

    def __init__(self, base: Any, tuned: Any, weight: float):
        super().__init__()
        self.networks = nn.ModuleList([base.network, tuned.network])
        self.velocities, self.weight = (base.velocity, tuned.velocity), weight

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x (B, ...), t (B,), a prepared condition -> (B, ...)."""
        base, tuned = (velocity(x, t, condition) for velocity in self.velocities)
        return torch.lerp(base, tuned, self.weight)


def interpolated(base: Any, tuned: Any, weight: float) -> Any:
    """The tuned generator with the interpolated velocity, for sampling; its plan, codec and guidance are the tuned
    one's. weight: w, any finite number. Raises TastemakerError where the two are of different kinds, shapes or words.
    """
    expect(math.isfinite(weight), "a finite weight between the base, 0, and the tuned generator, 1", weight)
    ours, theirs = (f"{type(g).__name__} of {tuple(g.shape)}" for g in (base, tuned))
    alike = ours == theirs and _words(base) == _words(tuned)
    expect(alike, "a base and a tuned generator of one kind, shape and vocabulary", f"{ours} and {theirs}")
    made = copy.copy(tuned)
    made.network = Interpolated(base, tuned, weight).eval()
    made.predict_velocity, made.save = made.network, _not_saved
    return made


def _words(generator: Any) -> list[str] | None:
    return getattr(getattr(generator, "vocabulary", None), "words", None)


def _not_saved(folder: Any) -> None:
    raise TastemakerError("an interpolation has the weights of two generators and is not saved: save these instead")
