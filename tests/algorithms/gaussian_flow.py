"""Gaussian data N(MEAN, VARIANCE) in every coordinate, with its exact velocity and a shift of it that is learned per
step: under a linear reward everything that adjoint matching aims at has a closed form."""

import torch
from torch import nn

from tastemaker.generators.flow import FlowGenerator
from tastemaker.records import Provenance

MEAN, VARIANCE, SLOPE = 1.5, 0.36, 0.8
TILTED = MEAN + SLOPE * VARIANCE  # the mean of p exp(r) at lambda = 1; its variance stays


def exact_velocity(x, t):
    """E[x1 - x0 | x_t], (B, ...)."""
    t = t.reshape(-1, *[1] * (x.ndim - 1)).to(x)
    return MEAN + (t * VARIANCE - (1 - t)) / (t**2 * VARIANCE + (1 - t) ** 2) * (x - t * MEAN)


class Same:
    """What the flow draws is the picture."""

    def encode(self, images, seeds):
        return images

    def decode(self, x1):
        return x1


class Shift(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps, self.shift = steps, nn.Parameter(torch.zeros(steps + 1))

    def forward(self, x, t):
        own = self.shift[(t * self.steps).round().long()]
        return exact_velocity(x, t) + own.reshape(-1, *[1] * (x.ndim - 1))


class GaussianFlow(FlowGenerator):
    def __init__(self, steps, shape=(1, 1, 1), plan=None):
        super().__init__(Shift(steps), shape, Same(), plan)

    def predict_velocity(self, x, t, condition):
        return self.network(x, t)


class Linear:
    """SLOPE times the sum of all coordinates."""

    name, differentiable, range, provenance = "linear", True, (-10.0, 10.0), Provenance("linear")

    def score(self, images, prompts):
        return SLOPE * images.flatten(1).sum(1)


def moments(sampler, velocity, times):
    """Mean and variance at the end, exactly: every step is affine in x plus noise."""
    mean, var = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    probe, grid = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor(times, dtype=torch.float64)
    for t, s in zip(grid[:-1], grid[1:]):
        step = sampler(velocity, probe, t.expand(2), s.expand(2), 0.0)
        shift, slope = step.mean[0, 0], step.mean[1, 0] - step.mean[0, 0]
        mean, var = slope * mean + shift, slope**2 * var + step.std[0] ** 2
    return float(mean), float(var)
