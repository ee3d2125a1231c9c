"""Flow-GRPO: densities and KLs against torch's, the ratio at the first step, the optimum in closed form."""

import math

import pytest
import torch
from gaussian_flow import SLOPE, GaussianFlow, Linear, exact_velocity, moments
from small import tiny_flow

from tastemaker.algorithms.flow_grpo import (
    Config,
    Step,
    exact,
    log_ratio,
    noisy_steps,
    published,
    published_kl,
    step_kl,
    train,
)
from tastemaker.algorithms.groups import GroupConfig
from tastemaker.algorithms.kept import Kept
from tastemaker.algorithms.memoryless import even_times, local_linear, local_linear_coefficients
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import ddim, euler, sde
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.records import Provenance

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]


class Bright:
    name, differentiable, range, provenance = "bright", False, (0.0, 1.0), Provenance("bright")

    def score(self, images, prompts):
        return (images > 0.5).float().mean((1, 2, 3))


class Constant(Bright):
    def score(self, images, prompts):
        return torch.full((len(images),), 0.3)


class NoDogs(Bright):
    def score(self, images, prompts):
        dogs = torch.tensor(["dog" in p.text for p in prompts])
        return torch.where(dogs, math.nan, images.mean((1, 2, 3)))


def run(reward, generator=None, plan=None, prompts=PROMPTS, groups=None, **settings):
    generator = generator or tiny_flow()
    plan = plan or Plan(sde, uniform_times(4), 0.7)
    values = {"steps": 2, "batch_size": 2, "optimiser": OptimiserConfig(1e-3), **settings}
    config = Config(groups=groups or GroupConfig(per_prompt=4), **values)
    rewards, state = reward if isinstance(reward, list) else [reward], begin(generator.network, config.optimiser)
    return generator, list(
        train(generator, generator.reference(), rewards, prompts, None, config, state, plan, Kept())
    )


def two_steps(size=4):
    torch.manual_seed(0)
    mean, old, x = (torch.randn(3, 2, size, size, dtype=torch.float64) for _ in range(3))
    return mean, old, torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64), x


def test_the_log_ratio_and_the_kl_are_torchs():
    mean, old, std, x = two_steps()
    wide = std[:, None, None, None]
    new, before = (torch.distributions.Normal(m, wide) for m in (mean, old))
    expected = (new.log_prob(x) - before.log_prob(x)).flatten(1).sum(1)
    torch.testing.assert_close(log_ratio(mean, old, std, x), expected)
    divergence = torch.distributions.kl_divergence(new, before).flatten(1).sum(1)
    torch.testing.assert_close(step_kl(mean, old, std), divergence)


def test_a_log_ratio_of_float32_keeps_its_digits():
    """Of 48,000 elements whose means differ by 1e-5: the difference of two log-densities would lose all of it."""
    x, old = torch.randn(1, 3, 400, 40), torch.randn(1, 3, 400, 40)
    mean, std = old + 1e-5, torch.tensor([0.5])
    exactly = log_ratio(mean.double(), old.double(), std.double(), x.double())
    assert float(log_ratio(mean, old, std, x)) == pytest.approx(float(exactly), rel=2e-2, abs=1e-4)


def test_the_published_kl_leaves_the_length_of_the_step_out():
    mean, old, noise, _ = two_steps()
    length = 0.1
    ours = step_kl(mean, old, noise * math.sqrt(length)) / mean[0].numel()
    torch.testing.assert_close(published_kl(mean, old, noise), ours * length)


def test_the_gradient_at_ratio_one_is_that_of_the_log_density():
    """REINFORCE with the generator's own density, which is the one it sampled from."""
    generator, plan = tiny_flow(), Plan(sde, uniform_times(4), 0.7)
    condition = generator.prepare(Condition.of(PROMPTS))
    before = generator.advance(generator.start(condition, torch.arange(2), plan))
    after, advantage = generator.advance(before), torch.tensor([0.7, -1.3])
    score = -(advantage * generator.log_prob(before, after)).sum()
    expected = torch.autograd.grad(score, generator.network.leave.weight)
    step = generator.transition(before)
    same, length = step.mean.detach(), torch.full((2,), 0.25)
    taken = Step(step.mean, same, same, step.std, length, after.x)
    weight = generator.network.leave.weight
    found = torch.autograd.grad(exact(taken, advantage, Config(strength=1e9)).sum(), weight, retain_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    mean = torch.autograd.grad(published(taken, advantage, Config(variant="published", kl_weight=0.0)).sum(), weight)
    torch.testing.assert_close(mean[0] * same[0].numel(), expected[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rows_at_once", [1, 3, 64])
@pytest.mark.parametrize("variant", ["exact", "published"])
def test_the_ratio_is_one_at_the_first_step_of_a_round(variant, rows_at_once):
    groups = GroupConfig(per_prompt=4, rows_at_once=rows_at_once)
    _, records = run(Bright(), groups=groups, steps=4, variant=variant)
    first, second = records[::2], records[1::2]
    assert [r.values["ratio"] for r in first] == [1, 1] and [r.values["clipped"] for r in first] == [0, 0]
    assert all(r.values["ratio"] != 1 for r in second)
    assert records[0].values["kl"] == 0 and records[1].values["kl"] > 0


def test_pieces_give_the_gradient_of_the_whole():
    norms = []
    for rows_at_once in (1, 3, 64):
        _, records = run(Bright(), groups=GroupConfig(per_prompt=4, rows_at_once=rows_at_once), steps=1)
        norms.append(records[0].values["gradient_norm"])
    assert norms[0] == pytest.approx(norms[2], rel=1e-3) and norms[1] == pytest.approx(norms[2], rel=1e-3)


def test_equal_rewards_teach_nothing():
    generator, records = run(Constant())
    assert [r.values["gradient_norm"] for r in records] == [0, 0]
    assert all(torch.equal(p, q) for p, q in zip(generator.network.parameters(), tiny_flow().network.parameters()))


def test_it_reaches_the_optimum_of_the_path():
    """A shift b_k of v moves the step's mean by Omega_k b_k and the end by c_k times that: the objective
    SLOPE sum c_k Omega_k b_k - (1 / lambda) sum (Omega_k b_k)^2 / (2 V_k) has its optimum in closed form."""
    steps, strength = 4, 1.5
    times = torch.tensor(even_times(steps), dtype=torch.float64)
    _, omega, variance = local_linear_coefficients(times[:-1], times[1:])
    probe, slopes = torch.tensor([[0.0], [1.0]], dtype=torch.float64), []
    for t, s in zip(times[:-1], times[1:]):
        mean = local_linear(exact_velocity, probe, t.expand(2), s.expand(2), 0.0).mean
        slopes.append(float(mean[1] - mean[0]))
    after = [math.prod(slopes[k + 1 :]) for k in range(steps)]
    best = [strength * SLOPE * after[k] * float(variance[k] / omega[k]) for k in range(steps - 1)]
    moved = sum(after[k] * float(omega[k]) * best[k] for k in range(steps - 1))
    generator, plan = GaussianFlow(steps), Plan(local_linear, even_times(steps))
    generator.codec = Middle()
    optimiser = OptimiserConfig(0.2, betas=(0.9, 0.99), cosine_steps=60, max_grad_norm=math.inf)
    groups = GroupConfig(per_prompt=128, updates=2, rows_at_once=512)
    run(Unclamped(), generator, plan, groups=groups, steps=60, strength=strength, batch_size=4, optimiser=optimiser)
    with torch.no_grad():
        ends = [
            moments(local_linear, g.network.double(), even_times(steps))[0] for g in (generator, GaussianFlow(steps))
        ]
    assert noisy_steps(plan) == [0, 1, 2] and generator.network.shift[3] == 0  # the last step has no density
    assert ends[0] - ends[1] == pytest.approx(moved, rel=0.15)


class Middle:
    """Pictures far from both ends of [0, 1], which are clamped before they are judged."""

    def decode(self, x1):
        return x1 / 100 + 0.5


class Unclamped(Linear):
    def score(self, images, prompts):
        return super().score((images - 0.5) * 100, prompts)


def test_pictures_without_a_score_count_for_nothing():
    _, records = run(NoDogs(), steps=3)
    assert all(math.isfinite(r.values["gradient_norm"]) for r in records)
    assert {r.values["no_score"] for r in records} <= {0, 4, 8}
    with pytest.raises(TastemakerError, match="'bright' gave no score for any of 8 pictures: nothing to compare"):
        run(NoDogs(), prompts=PROMPTS[1:])


def test_it_is_reproducible_and_follows_its_seed():
    first, second, other = (run(Bright(), seed=s)[0].network.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_what_cannot_be_is_refused():
    with pytest.raises(TastemakerError, match="a group of one has no advantage, got 1"):
        GroupConfig(per_prompt=1)
    for plan in (Plan(euler, uniform_times(4)), Plan(ddim, uniform_times(4), 0.0)):
        with pytest.raises(TastemakerError, match="no step of the plan draws noise"):
            run(Bright(), plan=plan)
    with pytest.raises(TastemakerError, match="no prompts"):
        run(Bright(), prompts=[])
