"""One step of a trajectory, from time t to s > t, as a Gaussian: Normal(mean, std).

Siblings with one signature: `sampler(velocity, x, t, s, eta)`, where `velocity(x, t) -> v` is already guided,
x is (B, ...), t and s are (B,). `advance` draws from the answer and `log_prob` reads its density, so the two can
never disagree. Letters: B batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..protocols import Transition
from .paths import expand, velocity_to_eps, velocity_to_x1

Velocity = Callable[[Tensor, Tensor], Tensor]


def euler(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """x + (s - t) v(x, t). First order, deterministic; eta is not used."""
    return Transition(x + expand(s - t, x) * velocity(x, t), torch.zeros_like(t))


def heun(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """The explicit trapezoid (EDM, arXiv 2206.00364, Algorithm 1). Second order, deterministic, two evaluations;
    a step that ends at s = 1 is an Euler step for those particles."""
    d_cur = velocity(x, t)
    x_next = x + expand(s - t, x) * d_cur
    inner = s < 1
    if inner.any():
        d_prime = velocity(x_next, torch.where(inner, s, t))
        x_next = torch.where(expand(inner, x) > 0, x + expand(s - t, x) * (d_cur + d_prime) / 2, x_next)
    return Transition(x_next, torch.zeros_like(t))


def sde(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Euler–Maruyama of dx = [v + sigma_t^2 / 2 score] dt + sigma_t dW with sigma_t = eta sqrt((1 - t) / t).

    score = (t v - x) / (1 - t). eta = 0 is the ODE, eta = 0.7 Flow-GRPO's usual level (arXiv 2505.05470, Eq. 9),
    eta = sqrt(2) the memoryless schedule (Domingo-Enrich et al., arXiv 2409.08861). At t = 0, where sigma_t is
    infinite, its denominator takes s for t, as Flow-GRPO does.
    """
    v = velocity(x, t)
    sigma = eta * ((1 - t) / torch.where(t > 0, t, s)).sqrt()  # (B,)
    score = (expand(t, x) * v - x) / expand(1 - t, x)
    mean = x + expand(s - t, x) * (v + expand(sigma**2, x) / 2 * score)
    return Transition(mean, sigma * (s - t).sqrt())


def ddim(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """DDIM (arXiv 2010.02502, Eqs. 12 and 16) in the units of the straight path; eta = 0 is the Euler step.

    There alpha / sigma = t / (1 - t), so with r = t (1 - s) / (s (1 - t)) the noise of Eq. 16, in units of
    alpha_s + sigma_s, is eta (1 - s) sqrt(1 - r^2). Written with s - t, it loses no digits in short steps.
    """
    v = velocity(x, t)
    x1, eps = velocity_to_x1(v, x, t), velocity_to_eps(v, x, t)
    r = t * (1 - s) / (s * (1 - t))  # (B,) in [0, 1]
    fresh = (s - t) / (s * (1 - t)) * (1 + r)  # 1 - r^2
    kept = (1 - eta**2 + (eta * r) ** 2).clamp_min(0).sqrt()
    mean = expand(s, x) * x1 + expand((1 - s) * kept, x) * eps
    return Transition(mean, eta * (1 - s) * fresh.clamp_min(0).sqrt())


def ddpm(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Ancestral sampling with the posterior variance (DDPM, arXiv 2006.11239, Eq. 7): DDIM at eta = 1."""
    return ddim(velocity, x, t, s, 1.0)


SAMPLERS = {f.__name__: f for f in (euler, heun, sde, ddim, ddpm)}
EVALUATIONS = {euler: 1, heun: 2, sde: 1, ddim: 1, ddpm: 1}  # network calls of one inner step
