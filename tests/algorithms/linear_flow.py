"""A generator whose trajectory is known in closed form: v = a x, so a step of length h multiplies x by 1 + h a."""

import torch
from torch import nn

from tastemaker.generators.flow import FlowGenerator, uniform_times
from tastemaker.generators.samplers import euler
from tastemaker.protocols import Plan


class Same:
    """x is the picture, brought to the middle of the range so that no clamp acts."""

    def encode(self, images, seeds):
        return (images - 0.5) * 100

    def decode(self, x1):
        return x1 / 100 + 0.5


class Scale(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, x):
        return self.a * x


class LinearFlow(FlowGenerator):
    def __init__(self, a=-0.5, steps=5, end=1.0):
        super().__init__(Scale(a), (3, 2, 2), Same(), Plan(euler, uniform_times(steps, 0.0, end)))

    def predict_velocity(self, x, t, condition):
        return self.network(x)
