"""Solvers that released sampling scripts offer beside those of `samplers`, as samplers of the same signature.

Fixed steps only: an adaptive solver chooses its steps from the whole batch, so that a picture would depend on its
neighbours. Names and arithmetic are those of torchdiffeq's fixed grids (midpoint, heun2, heun3, rk4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..protocols import Transition
from .paths import expand
from .samplers import Velocity


def runge_kutta(
    velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, rows: Sequence[Sequence[float]], weights: Sequence[float]
) -> Transition:
    """One explicit step of a Butcher tableau: rows below its diagonal, and the weights of the slopes."""
    slopes: list[Tensor] = []
    for row in rows:
        moved = sum((a * slope for a, slope in zip(row, slopes)), torch.zeros_like(x))
        slopes.append(velocity(x + expand(s - t, x) * moved, t + sum(row) * (s - t)))
    mean = sum((w * slope for w, slope in zip(weights, slopes)), torch.zeros_like(x))
    return Transition(x + expand(s - t, x) * mean, torch.zeros_like(t))


def midpoint(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Second order, two evaluations, none at s."""
    return runge_kutta(velocity, x, t, s, [(), (1 / 2,)], (0, 1))


def heun2(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """`samplers.heun` that evaluates at s = 1 too, where a network that divides by 1 - t may answer anything."""
    return runge_kutta(velocity, x, t, s, [(), (1,)], (1 / 2, 1 / 2))


def heun3(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Heun's third-order method, three evaluations, none at s."""
    return runge_kutta(velocity, x, t, s, [(), (1 / 3,), (0, 2 / 3)], (1 / 4, 0, 3 / 4))


def rk4(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Kutta's fourth-order 3/8 rule, four evaluations, the last at s."""
    rows = [(), (1 / 3,), (-1 / 3, 1), (1, -1, 1)]
    return runge_kutta(velocity, x, t, s, rows, (1 / 8, 3 / 8, 3 / 8, 1 / 8))


def sigma_drift(velocity: Velocity) -> Velocity:
    """v + (1 - t) score: the drift of `sde_sigma`, with score = (t v - x) / (1 - t)."""

    def drift(x: Tensor, t: Tensor) -> Tensor:
        v = velocity(x, t)
        return v + expand(t, x) * v - x

    return drift


def sde_sigma(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Euler–Maruyama of dx = [v + (1 - t) score] dt + sqrt(2 (1 - t)) dW: SiT's diffusion form "sigma"
    (arXiv 2401.08740, section 3.4) and REPA's sampler. Its noise is finite at t = 0; eta is not used."""
    mean = x + expand(s - t, x) * sigma_drift(velocity)(x, t)
    return Transition(mean, (2 * (1 - t) * (s - t)).sqrt())


def sde_sigma_mean_last(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """`sde_sigma` whose step to s = 1 adds no noise: the last step "Mean" of both releases."""
    step = sde_sigma(velocity, x, t, s, eta)
    return Transition(step.mean, torch.where(s < 1, step.std, torch.zeros_like(step.std)))
