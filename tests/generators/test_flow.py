"""The verbs of a flow generator on Gaussian data: densities, draws, losses, previews."""

import math

import gaussian
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import FlowGenerator, PixelCodec, shifted_times, uniform_times
from tastemaker.generators.samplers import ddim, ddpm, euler, heun, sde
from tastemaker.protocols import Condition, Draw, Plan
from tastemaker.sampling import finish

STOCHASTIC = [(sde, 0.7), (sde, math.sqrt(2)), (ddim, 0.6), (ddpm, 0.0)]


def started(plan, count=4):
    return gaussian.Gaussian(plan), Condition.of([""] * count), torch.arange(count)


def stepped(generator, condition, seeds, steps):
    state = generator.start(condition, seeds)
    for _ in range(steps):
        state = generator.advance(state)
    return state


@pytest.mark.parametrize("sampler, eta", STOCHASTIC)
def test_log_prob_is_the_normal_density_of_the_step(sampler, eta):
    plan = Plan(sampler, uniform_times(8), eta)
    generator, condition, seeds = started(plan)
    state = generator.start(condition, seeds)
    for k in range(7):
        after = generator.advance(state)
        t, s = (torch.full((4,), plan.times[j], dtype=torch.float64) for j in (k, k + 1))
        step = sampler(gaussian.velocity, state.x.double(), t, s, eta)
        expected = Normal(step.mean, step.std[:, None].expand(4, 2)).log_prob(after.x.double()).sum(1)
        torch.testing.assert_close(generator.log_prob(state, after).double(), expected, rtol=1e-4, atol=1e-4)
        state = after


@pytest.mark.parametrize("sampler, eta", STOCHASTIC)
@pytest.mark.parametrize("before", [0, 3])
def test_resampled_steps_have_the_mean_and_variance_of_the_density(sampler, eta, before):
    count = 4000
    generator, condition, seeds = started(Plan(sampler, uniform_times(8), eta), count)
    state = generator.start(condition, seeds)
    at = torch.tensor([0.3, -0.4]).expand(count, 2)
    state = type(state)(**{**vars(state), "x": at, "step": torch.full((count,), before)})
    x = generator.advance(state).x.double()
    t, s = torch.tensor([before / 8]).double(), torch.tensor([(before + 1) / 8]).double()
    step = sampler(gaussian.velocity, at[:1].double(), t, s, eta)
    assert ((x.mean(0) - step.mean[0]).abs() < 4 * step.std / math.sqrt(count)).all()
    assert ((x.var(0) / step.std**2 - 1).abs() < 4 * math.sqrt(2 / count)).all()


def test_the_score_function_has_mean_zero_and_its_gradient_reaches_the_network():
    count = 2000
    generator, condition, seeds = started(Plan(sde, uniform_times(8), 0.7), count)
    before = stepped(generator, condition, seeds, 2)
    log_prob = generator.log_prob(before, generator.advance(before))
    rows = torch.autograd.grad(log_prob.mean(), generator.network.scale, retain_graph=True)[0]
    each = [float(torch.autograd.grad(v, generator.network.scale, retain_graph=True)[0]) for v in log_prob[:300]]
    spread = torch.tensor(each).std()
    assert spread > 0.01 and abs(float(rows)) < 4 * float(spread) / math.sqrt(count)


@pytest.mark.parametrize("sampler, eta", [(euler, 0.0), (heun, 0.0), (sde, 0.0), (ddim, 0.0)])
def test_a_deterministic_step_has_no_density(sampler, eta):
    generator, condition, seeds = started(Plan(sampler, uniform_times(4), eta))
    state = generator.start(condition, seeds)
    with pytest.raises(TastemakerError, match="deterministic step has no density: sample with `sde`"):
        generator.log_prob(state, generator.advance(state))


def test_the_last_step_of_ddim_has_no_noise():
    generator, condition, seeds = started(Plan(ddpm, uniform_times(3)))
    state = stepped(generator, condition, seeds, 2)
    with pytest.raises(TastemakerError, match="last step"):
        generator.log_prob(state, generator.advance(state))


@pytest.mark.parametrize("sampler, eta", STOCHASTIC)
def test_a_sampled_crowd_has_the_mean_and_covariance_of_the_data(sampler, eta):
    count = 1000
    generator, condition, seeds = started(Plan(sampler, uniform_times(20), eta), count)
    x = finish(generator, generator.start(condition, seeds)).x.double()
    mean, cov = gaussian.marginal(sampler, eta, 20)
    assert ((x.mean(0) - mean).abs() < 4 * cov.diag().sqrt() / math.sqrt(count)).all()
    assert (torch.cov(x.T) - cov).abs().max() < 4 * math.sqrt(2 / count) * cov.max()


def test_noise_can_be_given_and_branches_draw_their_own():
    generator, condition, seeds = started(Plan(sde, uniform_times(4), 0.7))
    state = generator.start(condition, seeds)
    given = torch.randn(4, 2)
    assert torch.equal(generator.advance(state, noise=state.noise("step")).x, generator.advance(state).x)
    assert not torch.equal(generator.advance(state, noise=given).x, generator.advance(state).x)
    other = generator.start(condition, seeds, branch=torch.tensor([0, 1, 0, 2]))
    same = (other.x == state.x).all(1)
    assert same.tolist() == [True, False, True, False]
    forked = generator.advance(state.fork(3)).x.reshape(4, 3, 2)
    assert torch.equal(forked[:, 0], generator.advance(state).x)
    assert len({tuple(row) for row in forked.reshape(12, 2).tolist()}) == 12


def test_particles_at_different_steps_advance_together():
    generator, condition, seeds = started(Plan(sde, uniform_times(4), 0.7))
    early, late = stepped(generator, condition, seeds, 1), stepped(generator, condition, seeds, 3)
    both = type(early).concatenate([early[:2], late[2:]])
    after = generator.advance(both)
    torch.testing.assert_close(after.x[:2], generator.advance(early).x[:2])
    torch.testing.assert_close(after.x[2:], generator.advance(late).x[2:])
    with pytest.raises(TastemakerError, match="cannot advance past the last of 4 steps"):
        generator.advance(after)


def test_a_seed_for_each_prompt():
    generator, condition, _ = started(None)
    with pytest.raises(TastemakerError, match="one seed per prompt, got 3 seeds, 4 prompts"):
        generator.start(condition, torch.arange(3))


def test_previews_are_the_picture_the_velocity_points_to():
    generator, condition, seeds = started(Plan(euler, uniform_times(4)))
    state = stepped(generator, condition, seeds, 2)
    v = gaussian.velocity(state.x, torch.full((4,), 0.5))
    torch.testing.assert_close(generator.preview(state).detach(), (state.x + 0.5 * v) / 2 + 0.5)
    end = finish(generator, state)
    torch.testing.assert_close(generator.preview(end), end.x / 2 + 0.5)
    assert not generator.preview(state).requires_grad and generator.preview(state, grad=True).requires_grad
    assert not generator.advance(state).x.requires_grad and generator.advance(state, grad=True).x.requires_grad


def test_codec_goes_round():
    images = torch.rand(2, 3, 4, 4)
    codec = PixelCodec()
    assert codec.encode(torch.tensor([0.0, 1.0]), torch.arange(2)).tolist() == [-1, 1]
    torch.testing.assert_close(codec.decode(codec.encode(images, torch.arange(2))), images)


def test_the_loss_is_one_number_for_each_picture():
    generator, condition, seeds = started(None)
    x1 = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0], [0.5, 0.5]])
    draw = Draw(torch.tensor([0.0, 0.25, 0.5, 0.9]), torch.tensor([[0.0, 1.0], [1.0, 1.0], [-1.0, 2.0], [0.0, 0.0]]))
    loss = generator.loss(x1, condition, draw)
    by_hand = []
    for k in range(4):
        t, x0 = float(draw.time[k]), draw.noise[k]
        v = gaussian.velocity((t * x1[k] + (1 - t) * x0)[None], draw.time[k : k + 1])[0]
        by_hand.append(float(((v - (x1[k] - x0)) ** 2).sum() / 2))
    torch.testing.assert_close(loss.detach(), torch.tensor(by_hand))
    torch.testing.assert_close(generator.loss(x1[1:2], condition[1], draw[1]), loss[1:2])
    assert torch.equal(generator.loss(x1, condition, draw), loss)
    assert torch.equal(generator.draw(x1, seeds).noise, generator.draw(x1, seeds).noise)


def test_draws_are_of_their_seed_alone_and_logit_normal():
    generator = FlowGenerator(torch.nn.Linear(1, 1), (2,), PixelCodec(), time_mean=-0.6, time_std=0.8)
    x1, seeds = torch.zeros(3000, 2), torch.arange(3000)
    draw = generator.draw(x1, seeds)
    alone = generator.draw(x1[:1], seeds[17:18])
    assert torch.equal(alone.time, draw.time[17:18]) and torch.equal(alone.noise, draw.noise[17:18])
    assert stats.kstest(torch.logit(draw.time).numpy(), "norm", (-0.6, 0.8)).pvalue > 1e-3
    assert abs(float(torch.corrcoef(torch.stack([torch.logit(draw.time), draw.noise[:, 0]]))[0, 1])) < 0.08


def test_the_reference_is_frozen_and_stays():
    generator, condition, seeds = started(None)
    reference = generator.reference()
    with torch.no_grad():
        generator.network.scale.mul_(2)
    x, t = torch.ones(4, 2), torch.full((4,), 0.5)
    torch.testing.assert_close(2 * reference.velocity(x, t, condition), generator.velocity(x, t, condition))
    assert not any(p.requires_grad for p in reference.network.parameters())
    assert generator.network.scale.requires_grad


def test_times_are_even_and_end_exactly():
    assert uniform_times(4) == (0, 0.25, 0.5, 0.75, 1.0) and uniform_times(3, 0.1, 0.9)[-1] == 0.9
    assert shifted_times(4, 1.0) == uniform_times(4)
    assert shifted_times(2, 3.0) == pytest.approx((0, 0.25, 1)) and shifted_times(5, 3.0)[-1] == 1
    assert len(uniform_times(7)) == 8 and Plan(euler, uniform_times(7)).steps == 7


def test_a_family_that_says_nothing_is_told_so():
    bare = FlowGenerator(torch.nn.Linear(1, 1), (2,), PixelCodec())
    with pytest.raises(TypeError, match="FlowGenerator does not say how it predicts"):
        bare.velocity(torch.zeros(1, 2), torch.zeros(1), Condition.of([""]))
    with pytest.raises(TypeError, match="how it is saved"):
        bare.save("x")
