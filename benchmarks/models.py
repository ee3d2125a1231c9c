"""The generator that benchmarks run on: the shipped tiny-flow, or one of the same shape with random weights."""

from __future__ import annotations

import torch

from tastemaker.encoders.words import Vocabulary
from tastemaker.generators.networks import NetworkConfig
from tastemaker.generators.tiny_flow import TinyFlow, load_tiny_flow
from tastemaker.weights import shipped
from tastemaker.world.grammar import vocabulary


def tiny_flow() -> TinyFlow:
    """What a step costs does not depend on the weights; what it answers does, so random ones are not left at 0."""
    if shipped("tiny-flow").is_file():
        return load_tiny_flow(shipped("tiny-flow"))
    generator = TinyFlow.new(NetworkConfig(), Vocabulary(vocabulary(), 12))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in generator.network.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=noise))
    generator.network.eval()
    return generator
