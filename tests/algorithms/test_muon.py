"""Muon: singular values near 1, a step in closed form, and who steps what."""

import pytest
import torch
from torch import nn

from tastemaker.algorithms.muon import Muon, orthogonalise
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.encoders.words import Vocabulary
from tastemaker.generators.networks import NetworkConfig
from tastemaker.generators.tiny_flow import TinyFlow


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 50, 20), (1, 32, 32)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    got = orthogonalise(matrices)
    values = torch.linalg.svdvals(got)
    assert values.max() < 1.25 and values[:, : min(shape[1:]) // 2].min() > 0.65
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ got @ vh.mT  # diagonal where the singular directions are kept
    off = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-3


def test_a_step_on_one_matrix_is_minus_the_rate_times_its_orthogonal_direction():
    weight = nn.Parameter(torch.zeros(40, 10))
    weight.grad = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    expected = -0.1 * 2 * orthogonalise(weight.grad[None].clone())[0]  # sqrt(40 / 10) = 2
    Muon([{"params": [weight], "momentum": 0.95}], lr=0.1).step()
    assert torch.allclose(weight.detach(), expected, atol=1e-5)


def test_only_hidden_matrices_are_stepped_by_muon():
    generator = TinyFlow.new(NetworkConfig(width=32, depth=1, heads=1, channels=16, decoder=8), Vocabulary(["a"], 2))
    state = begin(generator.parts, OptimiserConfig(1e-3, muon_scale=5.0), generator.hidden)
    group = next(g for g in state.optimiser.param_groups if "momentum" in g)
    assert len(group["params"]) == len(generator.hidden) and all(p.ndim > 1 for p in group["params"])
    for outside in ("word", "enter", "leave", "place", "decoder", "table"):
        assert not any(outside in name for name in generator.hidden), outside
    state.update(sum(p.square().sum() for p in generator.parts.parameters()))
    assert group["lr"] == pytest.approx(5e-3)


def test_without_a_scale_adamw_steps_all():
    generator = TinyFlow.new(NetworkConfig(width=32, depth=1, heads=1, channels=16, decoder=8), Vocabulary(["a"], 2))
    state = begin(generator.parts, OptimiserConfig(1e-3), generator.hidden)
    assert not isinstance(state.optimiser, Muon)
