"""Weights of particles that are steered by a reward (Feynman-Kac steering, Singhal et al. 2025, arXiv 2501.06848).

A population of K particles of one prompt draws a picture. Now and then each one's preview is judged, and a potential
turns the rewards r so far into a weight exp(lambda value); particles are then drawn again by their weights. Over a
line the potentials multiply to exp(lambda r) of its end: for `difference` they telescope by themselves, and for the
others the last weight divides by what went before. Everything is in logarithms. A reward of NaN weighs nothing.

| potential | value | carried on |
|---|---|---|
| `difference` | r - carried | r |
| `maximum` | max(r, carried) | the same |
| `total` | r + carried | the same |
| `latest` | r | r |

Letters: K particles of a prompt, the last axis of every tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Potential = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (rewards, carried) -> (value, carried on), (..., K)


def difference(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The gain since the last look."""
    return reward - carried, reward


def maximum(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The best so far."""
    best = torch.maximum(reward, carried)
    return best, best


def total(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of all looks."""
    return reward + carried, reward + carried


def latest(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """This look alone."""
    return reward, reward


POTENTIALS: dict[str, Potential] = {f.__name__: f for f in (difference, maximum, total, latest)}


@dataclass(frozen=True)
class Lineage:
    """What the line of each particle has gone through."""

    carried: Tensor  # (..., K)
    log_product: Tensor  # (..., K) of the weights by which its ancestors were drawn

    @classmethod
    def begin(cls, rewards: Tensor, carried: float = 0.0) -> Lineage:
        """For rewards of this shape. carried: what a line starts with, a reward that none is expected to be below."""
        return cls(torch.full_like(rewards, carried), torch.zeros_like(rewards))

    def drawn(self, rows: Tensor, log_weight: Tensor) -> Lineage:
        """After a draw: rows (..., K) int64, by log_weight (..., K)."""
        return Lineage(self.carried.gather(-1, rows), (self.log_product + log_weight).gather(-1, rows))


def weigh(
    reward: Tensor, lineage: Lineage, potential: Potential, strength: float, last: bool = False
) -> tuple[Tensor, Lineage]:
    """log weights (..., K), and the lineage with what is carried on. strength: lambda. last: at the end of the
    way."""
    known = ~reward.isnan()
    value, carried = potential(torch.where(known, reward, lineage.carried), lineage.carried)
    log_weight = strength * value
    if last and potential is not difference:
        log_weight = log_weight - lineage.log_product
    carried = torch.where(known, carried, lineage.carried)
    return torch.where(known, log_weight, -torch.inf), replace(lineage, carried=carried)


def effective_size(log_weight: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, (..., K) -> (...): K where all weigh the same, 1 where one does; NaN where none weighs."""
    return (-(2 * log_weight.log_softmax(-1)).logsumexp(-1)).exp()


def due(log_weight: Tensor, share: float = 0.5) -> Tensor:
    """Whether to draw again, (...) bool: fewer than `share` of the particles count."""
    return effective_size(log_weight) < share * log_weight.shape[-1]


def systematic(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Rows (..., K) int64 by systematic resampling: a particle of weight w is taken floor(K w) or ceil(K w) times,
    with much less chance in it than K single draws. uniform (...) in [0, 1)."""
    count = log_weight.shape[-1]
    ladder = log_weight.double().softmax(-1).cumsum(-1)
    marks = (torch.arange(count, device=log_weight.device) + uniform[..., None].double()) / count
    return torch.searchsorted(ladder.contiguous(), marks.contiguous(), right=True).clamp_max(count - 1)
