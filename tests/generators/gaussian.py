"""Gaussian data, for which the best velocity and the path of every particle have a closed form."""

import torch
from torch import nn

from tastemaker.generators.flow import FlowGenerator, PixelCodec

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.8]], dtype=torch.float64)
values, vectors = torch.linalg.eigh(COVARIANCE)
SYMMETRIC_ROOT = vectors @ values.sqrt().diag() @ vectors.T


def velocity(x, t):
    """E[x1 - x0 | x_t], for x (B, 2) and t (B,): x_t has mean t m and covariance t^2 S + (1 - t)^2 I."""
    m, s, one = MEAN.to(x), COVARIANCE.to(x), torch.eye(2).to(x)
    t = t.to(x)[:, None, None]
    spread = t**2 * s + (1 - t) ** 2 * one
    towards = torch.linalg.solve(spread, (x - t[:, 0] * m)[..., None])
    return m + ((t * s - (1 - t) * one) @ towards)[..., 0]


def end_of(x0):
    """Where the probability-flow ODE takes x0 at t = 1."""
    return MEAN.to(x0) + x0 @ SYMMETRIC_ROOT.to(x0)


def times_of(steps, start=0.0):
    return torch.linspace(start, 1, steps + 1, dtype=torch.float64)


def run(sampler, x, times, eta=0.0):
    """The deterministic part of a trajectory."""
    for t, s in zip(times[:-1], times[1:]):
        x = sampler(velocity, x, t.expand(len(x)), s.expand(len(x)), eta).mean
    return x


def marginal(sampler, eta, steps, start=0.0):
    """Mean and covariance at t = 1, exactly, from the true ones at `start`: every step is affine plus noise."""
    mean, cov = start * MEAN, start**2 * COVARIANCE + (1 - start) ** 2 * torch.eye(2, dtype=torch.float64)
    probe = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    times = times_of(steps, start)
    for t, s in zip(times[:-1], times[1:]):
        step = sampler(velocity, probe, t.expand(3), s.expand(3), eta)
        shift, slope = step.mean[0], (step.mean[1:] - step.mean[0]).T
        mean, cov = slope @ mean + shift, slope @ cov @ slope.T + step.std[0] ** 2 * torch.eye(2).double()
    return mean, cov


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, t):
        return velocity(x.flatten(1), t).reshape(x.shape) * self.scale


class Gaussian(FlowGenerator):
    """The same as a generator; x (2,)."""

    def __init__(self, plan=None):
        super().__init__(Network(), (2,), PixelCodec(), plan)

    def predict_velocity(self, x, t, condition):
        return self.network(x, t)
