"""The straight path x_t = t x1 + (1 - t) x0 and what can be read off it (Lipman et al. 2023, arXiv 2210.02747).

Every generator answers in velocities on this path. A variance-preserving diffusion, x = alpha x1 + sigma x0 with
alpha^2 + sigma^2 = 1, is the same line in other units: x_t = x / (alpha + sigma) at t = alpha / (alpha + sigma).
Times t are (B,) float32 in [0, 1].
"""

from __future__ import annotations

from torch import Tensor


def expand(t: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to multiply something of the shape of `like`."""
    return t.to(like).reshape(-1, *[1] * (like.ndim - 1))


def interpolate(x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    return expand(t, x1) * x1 + (1 - expand(t, x1)) * x0


def velocity_to_x1(velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return x + (1 - expand(t, x)) * velocity


def velocity_to_eps(velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return x - expand(t, x) * velocity


def x1_to_velocity(x1: Tensor, x: Tensor, t: Tensor, floor: float = 0.0) -> Tensor:
    """floor: the least 1 - t that is divided by (JiT, arXiv 2511.13720, uses 0.05)."""
    return (x1 - x) / (1 - expand(t, x)).clamp_min(floor)


def eps_to_velocity(eps: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Defined for t > 0."""
    return (x - eps) / expand(t, x)


def vp_time(alpha: Tensor) -> Tensor:
    """The time t of a variance-preserving level alpha = sqrt(alphas_cumprod)."""
    return alpha / (alpha + (1 - alpha**2).sqrt())


def vp_scale(t: Tensor) -> Tensor:
    """alpha + sigma = 1 / sqrt(t^2 + (1 - t)^2): x_vp = vp_scale(t) x_t."""
    return (t**2 + (1 - t) ** 2).rsqrt()


def vp_to_velocity(v: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """From the v of Salimans & Ho (arXiv 2202.00512), v = alpha x0 - sigma x1, at x on the straight path.

    x1 = alpha x_vp - sigma v and x0 = sigma x_vp + alpha v.
    """
    scale = expand(vp_scale(t), x)  # (B, 1, ...)
    alpha, sigma = expand(t, x) * scale, (1 - expand(t, x)) * scale
    return (alpha - sigma) * scale * x - (sigma + alpha) * v
