"""Training state: closed forms of the schedule and the average, refusals, and resuming bit for bit."""

import io
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tastemaker.algorithms.optimise import OptimiserConfig, bare, begin, constant, cosine, step_size
from tastemaker.errors import TastemakerError


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def loss_of(net, step):
    """Data as a pure function of the step, and one draw from the global generator."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
    return (net(x) - x.sum(1, keepdim=True) + 0.1 * torch.randn(6, 1)).pow(2).mean()


def train(state, until):
    while state.step < until:
        state.update(loss_of(state.network, state.step))
    return state


def through_disk(state):
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


HIDDEN = ["0.weight"]
CONFIGS = [
    OptimiserConfig(learning_rate=1e-2),
    OptimiserConfig(learning_rate=1e-2, ema_decay=0.9, weight_decay=0.1, warmup_steps=3, cosine_steps=20),
    OptimiserConfig(learning_rate=1e-2, ema_decay=0.99, accumulate=4),
    OptimiserConfig(learning_rate=1e-2, ema_decay=0.9, muon_scale=2.0),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("stop", [0, 1, 6, 8])
def test_a_resumed_run_is_bit_equal(config, stop):
    torch.manual_seed(5)
    whole = train(begin(network(), config, HIDDEN), 12)
    torch.manual_seed(5)
    first = begin(network(), config, HIDDEN)
    saved = through_disk(train(first, stop))
    torch.manual_seed(77)  # a new process has other generators and other initial weights
    resumed = begin(network(seed=9), config, HIDDEN)
    resumed.load_state_dict(saved)
    assert resumed.step == stop
    train(resumed, 12)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    for name, value in (whole.ema or {}).items():
        assert torch.equal(value, resumed.ema[name]), name


def test_the_random_generators_are_part_of_the_state():
    state = begin(network(), OptimiserConfig())
    saved = through_disk(state)
    first = (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002
    state.load_state_dict(saved)
    assert first == (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002


def test_a_saved_state_does_not_follow_later_steps():
    state = train(begin(network(), OptimiserConfig(learning_rate=0.1)), 2)
    saved = through_disk(state)
    resumed = begin(network(3), OptimiserConfig(learning_rate=0.1))
    resumed.load_state_dict(saved)
    before = saved["weights"]["0.weight"].clone()
    train(resumed, 4)
    assert torch.equal(saved["weights"]["0.weight"], before)


def test_schedules_in_closed_form():
    assert [constant(s, 3) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    assert cosine(10, 0, 20) == pytest.approx(0.5)
    assert cosine(20, 4, 20) == pytest.approx(0) and cosine(25, 4, 20) == pytest.approx(0)
    assert step_size(OptimiserConfig(learning_rate=2.0), 100) == 2.0


def test_accumulating_equals_one_step_on_the_mean():
    config = OptimiserConfig(learning_rate=0.1, max_grad_norm=math.inf)
    one, many = begin(nn.Linear(4, 1), config), begin(nn.Linear(4, 1), replace(config, accumulate=3))
    many.network.load_state_dict(one.network.state_dict())
    x = torch.randn(3, 5, 4)
    one.update(torch.stack([one.network(b).pow(2).mean() for b in x]).mean())
    for b in x:
        many.update(many.network(b).pow(2).mean())
    assert torch.allclose(one.network.weight, many.network.weight, atol=1e-6)


def test_the_average_in_closed_form_and_swapped_in_and_out():
    state = begin(nn.Linear(1, 1, bias=False), OptimiserConfig(learning_rate=0.1, ema_decay=0.5))
    with torch.no_grad():
        state.network.weight.fill_(1.0)
        state.ema["weight"].fill_(1.0)
    expected = 1.0
    for step in range(15):
        state.update(state.network.weight.sum())
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * state.network.weight.item()
    now = state.network.weight.item()
    with pytest.raises(RuntimeError), state.ema_weights() as averaged:
        assert averaged.weight.item() == pytest.approx(expected, rel=1e-5) and expected != now
        raise RuntimeError
    assert state.network.weight.item() == now


def test_gradients_are_clipped_and_the_norm_is_that_before():
    state = begin(nn.Linear(2, 1, bias=False), OptimiserConfig(max_grad_norm=0.5, accumulate=1))
    seen = []
    state.optimiser.register_step_pre_hook(lambda *_: seen.append(state.network.weight.grad.norm().item()))
    figures = state.update((state.network.weight * torch.tensor([[3.0, 4.0]])).sum())
    assert figures["gradient_norm"] == pytest.approx(5)
    assert seen[0] == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_non_finite_step_is_refused_and_leaves_the_weights(poison):
    state = train(begin(network(), OptimiserConfig()), 2)
    before = state.network[0].weight.detach().clone()
    with pytest.raises(TastemakerError, match="step 3: loss .*not finite.*learning rate"):
        state.update(loss_of(state.network, 2) * poison)
    assert torch.equal(before, state.network[0].weight) and state.step == 2
    assert math.isfinite(state.update(loss_of(state.network, 2))["gradient_norm"])


def test_a_non_finite_gradient_of_a_finite_loss_is_refused():
    state = begin(nn.Linear(1, 1, bias=False), OptimiserConfig())
    with pytest.raises(TastemakerError, match="gradient_norm is not finite"):
        state.update((state.network.weight * 0).abs().sum().sqrt())  # sqrt at 0: gradient 0 * inf


def test_bad_settings_and_other_networks_are_refused():
    with pytest.raises(TastemakerError, match="learning_rate > 0"):
        OptimiserConfig(learning_rate=0)
    with pytest.raises(TastemakerError, match="larger than warmup_steps"):
        OptimiserConfig(warmup_steps=10, cosine_steps=5)
    with pytest.raises(TastemakerError, match="no trainable weights"):
        begin(nn.Linear(1, 1).requires_grad_(False), OptimiserConfig())
    with pytest.raises(TastemakerError, match="scalar"):
        begin(network(), OptimiserConfig()).update(torch.zeros(3, requires_grad=True))
    with pytest.raises(TastemakerError, match="another network"):
        begin(nn.Linear(2, 1), OptimiserConfig()).load_state_dict(begin(network(), OptimiserConfig()).state_dict())


def test_wrappers_are_seen_through_and_frozen_weights_left_out():
    wrapped = nn.Module()
    wrapped.module = network()
    wrapped.module[0].requires_grad_(False)
    state = begin(wrapped, OptimiserConfig(ema_decay=0.9))
    assert bare(wrapped) is wrapped.module
    assert set(state.ema) == set(state.state_dict()["weights"]) == {"1.weight", "1.bias", "3.weight", "3.bias"}
