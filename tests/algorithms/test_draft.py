"""DRaFT: the gradient through the last K steps against closed forms, the low-variance form, missing rewards."""

import math

import pytest
import torch
from linear_flow import LinearFlow
from small import kept_bytes, tiny_flow

from tastemaker.algorithms.draft import Config, noised_again, objective, pictures, rollout, train
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.data.batches import Batches
from tastemaker.errors import NotDifferentiable, TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.records import Provenance
from tastemaker.sampling import sample
from tastemaker.world.dataset import clean_world

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]


class Grey:
    """Minus the mean squared distance to a grey."""

    name, differentiable, range, provenance = "grey", True, (-1.0, 0.0), Provenance("grey")

    def score(self, images, prompts):
        return -(images - 0.3).pow(2).mean((1, 2, 3))


class Sometimes(Grey):
    """A root of a negative number for dogs: the score and its derivative are NaN."""

    def score(self, images, prompts):
        sign = torch.tensor([-1.0 if "dog" in p.text else 1.0 for p in prompts])
        return (sign * (images.mean((1, 2, 3)) + 0.5)).sqrt()


def small_flow():
    generator = tiny_flow()
    generator.plan = Plan(euler, uniform_times(4))
    return generator


def run(reward, generator=None, prompts=PROMPTS, batches=None, **settings):
    generator = generator or small_flow()
    values = {"steps": 2, "batch_size": 4, "reward_weight": 1.0, "optimiser": OptimiserConfig(1e-3), **settings}
    state = begin(generator.network, values["optimiser"])
    return generator, list(train(generator, reward, prompts, batches, Config(**values), state))


@pytest.mark.parametrize("last", [1, 2, 5, 9])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_of_a_linear_sampler_in_closed_form(last, checkpointing):
    """x_T = (1 + h a)^K x_{T-K}, x_{T-K} held fixed: its derivative is K h (1 + h a)^(K - 1) x_{T-K}."""
    generator, h, a, total = LinearFlow(a=-0.5, steps=5), 0.2, -0.5, 5
    condition, seeds = Condition.of(["", "", ""]), torch.arange(3)
    end = rollout(generator, condition, seeds, last, checkpointing)
    start = generator.start(condition, seeds).x
    torch.testing.assert_close(end.x.detach(), (1 + h * a) ** total * start, rtol=1e-5, atol=1e-6)
    end.x.sum().backward()
    k = min(last, total)
    fixed = (1 + h * a) ** (total - k) * start
    expected = k * h * (1 + h * a) ** (k - 1) * fixed.sum()
    assert float(generator.network.a.grad) == pytest.approx(float(expected), rel=1e-4)


def test_the_whole_chain_against_finite_differences():
    generator, condition, seeds = small_flow(), Condition.of(PROMPTS), torch.arange(2)
    weights = list(generator.network.parameters())

    def value():
        images = generator.preview(rollout(generator, condition, seeds, 4), grad=True)
        return Grey().score(images, PROMPTS).sum()

    exact = torch.autograd.grad(value(), weights)
    length = math.sqrt(sum(float(g.pow(2).sum()) for g in exact))
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, g in zip(weights, exact):
                p.add_(sign * 1e-2 * g / length)
            found.append(float(value()))
            for p, g in zip(weights, exact):
                p.sub_(sign * 1e-2 * g / length)
    assert length > 1e-3 and (found[0] - found[1]) / 2e-2 == pytest.approx(length, rel=0.02)


def test_steps_before_the_last_k_leave_no_graph():
    generator, seen = small_flow(), []
    generator.network.register_forward_hook(lambda m, a, out: seen.append(out.requires_grad))
    rollout(generator, Condition.of(PROMPTS), torch.arange(2), 3)
    assert seen == [False, True, True, True]


def test_checkpointing_keeps_less_and_gives_the_same_gradient():
    condition, seeds, sizes, gradients = Condition.of(PROMPTS), torch.arange(2), [], []
    for checkpointing in (False, True):
        generator = small_flow()
        sizes.append(kept_bytes(lambda g=generator, c=checkpointing: rollout(g, condition, seeds, 4, c).x))
        images = generator.preview(rollout(generator, condition, seeds, 4, checkpointing), grad=True)
        Grey().score(images, PROMPTS).sum().backward()
        gradients.append([p.grad for p in generator.network.parameters()])
    assert sizes[1] < sizes[0] / 4
    for plain, saving in zip(*gradients):
        torch.testing.assert_close(plain, saving)


# the low-variance form


@pytest.mark.parametrize("end", [1.0, 0.95])
def test_noising_again_gives_the_distribution_before_the_last_step(end):
    """Of x1 = 3 known, x_e = e 3 + (1 - e) n: noised again its mean is 3 t and its deviation 1 - t."""
    generator = LinearFlow(steps=4, end=end)
    state = generator.start(Condition.of([""] * 4000), torch.arange(4000))
    finished = state.x.new_full(state.x.shape, 3.0) * end + (1 - end) * state.x
    state = type(state)(**{**vars(state), "x": finished, "step": torch.full((4000,), 4)})
    again, t = noised_again(state, 0), 0.75 * end
    assert again.step.tolist() == [3] * 4000
    assert float(again.x.mean()) == pytest.approx(3 * t, abs=0.01)
    assert float(again.x.std()) == pytest.approx(1 - t, rel=0.01)
    assert (noised_again(state, 1).x - again.x).abs().max() > 0.1  # another draw, other noise
    assert noised_again(state[7], 0).x.equal(again.x[7:8])  # the same alone


def test_the_low_variance_gradient_is_the_mean_of_the_last_steps():
    """x_T = (1 + h a) x_{T-1}: each version's derivative is h x, and the loss takes their mean."""
    generator, config = LinearFlow(steps=5), Config(fresh_noises=3)
    condition, seeds = Condition.of(["", ""]), torch.arange(2)
    judged = torch.stack([x.mean((1, 2, 3)) for x in pictures(generator, condition, seeds, config)])
    assert judged.shape == (4, 2)
    judged.mean().backward()
    end = rollout(generator, condition, seeds, 1)
    before = [end.x.detach() / (1 - 0.2 * 0.5), *(noised_again(end, k).x for k in range(3))]
    expected = 0.2 * torch.stack(before).mean() / 100  # the codec divides by 100
    assert float(generator.network.a.grad) == pytest.approx(float(expected), rel=1e-4)


# training


def test_the_objective_and_its_gradient():
    rewards = torch.tensor([1.0, 3.0, math.nan], requires_grad=True)
    loss = objective(rewards, mean=1.0, std=2.0)
    assert loss.tolist() == [0.0, -1.0, 0.0]
    loss.sum().backward()
    assert rewards.grad.tolist() == [-0.5, -0.5, 0.0]


@pytest.mark.parametrize("settings", [{"last_steps": 1}, {"last_steps": 3}, {"fresh_noises": 2}])
def test_the_reward_rises(settings):
    generator, records = run(Grey(), prompts=PROMPTS[:1], steps=25, batch_size=6, **settings)
    before, after = (
        Grey().score(sample(g, PROMPTS[:1] * 16, range(100, 116)), PROMPTS[:1] * 16).mean()
        for g in (small_flow(), generator)
    )
    assert after > before + 0.005 and len(records) == 25


def test_a_missing_reward_gives_no_gradient():
    generator, records = run(Sometimes(), prompts=PROMPTS[1:])
    assert [r.values["no_score"] for r in records] == [4, 4] and records[0].values["gradient_norm"] == 0
    assert all(torch.equal(p, q) for p, q in zip(generator.network.parameters(), small_flow().network.parameters()))
    _, records = run(Sometimes(), steps=3)
    assert all(math.isfinite(r.values["gradient_norm"]) for r in records)


def test_the_pretraining_loss_is_added():
    _, with_data = run(Grey(), batches=Batches(clean_world(0, 16), 4), steps=1, pretraining_weight=2.0)
    _, without = run(Grey(), steps=1)
    values = with_data[0].values
    assert values["loss"] == pytest.approx(without[0].values["loss"] + 2 * values["pretraining_loss"], rel=1e-4)


def test_it_is_reproducible_and_follows_its_seed():
    first, second, other = (run(Grey(), seed=s)[0].network.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_what_cannot_be_is_refused():
    class Counted(Grey):
        name, differentiable = "counted", False

    with pytest.raises(NotDifferentiable, match="'counted' has none. Use it with `search best-of-n`"):
        run(Counted())
    with pytest.raises(TastemakerError, match="fresh_noises of 0, or above 0 with last_steps = 1"):
        Config(fresh_noises=2, last_steps=2)
    with pytest.raises(TastemakerError, match="no prompts"):
        run(Grey(), prompts=[])
