"""Guidance by a reward's gradient: it gives the target's velocity, and its pictures, where that is known exactly."""

import math

import pytest
import torch
from gaussian import COVARIANCE, MEAN, Gaussian, times_of, velocity
from small import tiny_flow

from tastemaker.errors import NotDifferentiable, TastemakerError
from tastemaker.generators.reward_guidance import guided_by, of_predicted_picture, steered, steered_velocity
from tastemaker.generators.samplers import euler, heun
from tastemaker.protocols import Condition, Plan
from tastemaker.records import Provenance
from tastemaker.sampling import finish, sample

OTHER_MEAN = torch.tensor([-0.3, 0.4], dtype=torch.float64)
OTHER_COVARIANCE = torch.tensor([[0.4, -0.1], [-0.1, 1.2]], dtype=torch.float64)
SLOPE = torch.tensor([0.7, -0.4], dtype=torch.float64)
PROMPTS = ["a photo of a red cat", "a photo of two dogs"]


def spread_of(t, covariance):
    t = t[:, None, None]
    return t**2 * covariance + (1 - t) ** 2 * torch.eye(2, dtype=torch.float64)


def log_density(x, t, mean, covariance):
    """Of x_t where the data is Gaussian, (B,)."""
    return torch.distributions.MultivariateNormal(t[:, None] * mean, spread_of(t, covariance)).log_prob(x)


def velocity_of(x, t, mean, covariance):
    """E[x1 - x0 | x_t]."""
    one, spread = torch.eye(2, dtype=torch.float64), spread_of(t, covariance)
    towards = torch.linalg.solve(spread, (x - t[:, None] * mean)[..., None])
    return mean + ((t[:, None, None] * covariance - (1 - t)[:, None, None] * one) @ towards)[..., 0]


def exact_ratio(x, x1, t, condition):
    return log_density(x, t, OTHER_MEAN, OTHER_COVARIANCE) - log_density(x, t, MEAN, COVARIANCE)


class Linear:
    """SLOPE x, of pictures x / 2 + 1 / 2."""

    name, differentiable, range, provenance = "linear", True, (-10.0, 10.0), Provenance("linear")

    def score(self, images, prompts):
        return (2 * images - 1) @ SLOPE.to(images)


class Redness(Linear):
    def score(self, images, prompts):
        return 40 * (images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3)))


class NoDogs(Redness):
    def score(self, images, prompts):
        found = super().score(images, prompts)
        return torch.where(torch.tensor(["dog" in p.text for p in prompts]), math.nan * found, found)


def somewhere(count=40):
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return x, torch.linspace(0.01, 0.99, count, dtype=torch.float64)


def test_with_the_exact_log_ratio_the_velocity_is_the_targets():
    x, t = somewhere()
    found = steered_velocity(velocity, exact_ratio, x, t, None, 1.0, 0.0)
    torch.testing.assert_close(found, velocity_of(x, t, OTHER_MEAN, OTHER_COVARIANCE), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_linear_reward_of_the_predicted_picture_tilts_a_gaussian_exactly(scale):
    x, t = somewhere()
    ratio = of_predicted_picture(Gaussian(), Linear())
    found = steered_velocity(velocity, ratio, x, t, Condition.of([""] * 40), scale, 0.0)
    tilted = MEAN + scale * COVARIANCE @ SLOPE  # p exp(scale r) of a linear r: another mean alone
    torch.testing.assert_close(found, velocity_of(x, t, tilted, COVARIANCE), rtol=1e-6, atol=1e-7)


def test_the_pictures_have_the_targets_mean_and_covariance():
    """A deterministic sampler is affine here, so three particles tell both, without chance."""
    x = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    times = times_of(400)
    for t, s in zip(times[:-1], times[1:]):
        step = steered(heun, exact_ratio, None, 1.0, 0.0)
        with torch.no_grad():
            x = step(velocity, x, t.expand(3), s.expand(3), 0.0).mean
    slope = (x[1:] - x[0]).T
    torch.testing.assert_close(x[0], OTHER_MEAN, rtol=0, atol=0.01)
    torch.testing.assert_close(slope @ slope.T, OTHER_COVARIANCE, rtol=0.01, atol=0.01)


def test_a_guided_generator_draws_the_tilted_gaussian():
    plan = Plan(heun, tuple(times_of(100).tolist()))
    generator = guided_by(Gaussian(plan), of_predicted_picture(Gaussian(plan), Linear()), 1.0, after=0.0)
    seeds, condition = torch.arange(4), Condition.of([""] * 4)
    base = finish(Gaussian(plan), Gaussian(plan).start(condition, seeds)).x
    moved = finish(generator, generator.start(condition, seeds)).x - base
    torch.testing.assert_close(moved.double(), (COVARIANCE @ SLOPE).expand(4, 2), rtol=0, atol=0.01)


def test_before_its_first_time_and_at_the_ends_nothing_is_steered():
    x, _ = somewhere(4)
    t = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    found = steered_velocity(velocity, exact_ratio, x, t, None, 1.0, 0.3)
    assert (found != velocity(x, t)).any(1).tolist() == [False, False, True, False]
    assert steered_velocity(velocity, exact_ratio, x, t * 0, None, 1.0, 0.0).equal(velocity(x, t * 0))
    assert steered_velocity(velocity, exact_ratio, x, t, None, 0.0, 0.0).equal(velocity(x, t))


def redder(reward=None, **more):
    generator = tiny_flow()
    return guided_by(generator, of_predicted_picture(generator, reward or Redness()), **more)


def test_pictures_follow_the_reward_with_and_without_guidance_of_the_words():
    for guidance in (1.0, 3.0):
        base, drawn = (sample(g, PROMPTS, [0, 1], guidance=guidance) for g in (tiny_flow(), redder(scale=2.0)))
        assert (Redness().score(drawn, PROMPTS) > Redness().score(base, PROMPTS)).all()


def test_a_picture_without_a_score_is_drawn_as_without_guidance():
    prompts = Condition.of(PROMPTS).prompts
    base, drawn = (sample(g, prompts, [0, 1]) for g in (tiny_flow(), redder(NoDogs(), scale=2.0)))
    assert (base != drawn).flatten(1).any(1).tolist() == [True, False]


def test_the_same_picture_alone_or_in_a_batch():
    both, alone = sample(redder(), PROMPTS, [3, 4]), sample(redder(), PROMPTS[1:], [4])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused():
    class Counted(Redness):
        name, differentiable = "counted", False

    with pytest.raises(NotDifferentiable, match="guidance needs a reward with a gradient; 'counted' has none"):
        redder(Counted())
    with pytest.raises(TastemakerError, match="a first time of the guidance from 0 to 1, got 2"):
        redder(after=2.0)
    generator = redder(after=0.0)
    state = generator.advance(generator.start(Condition.of(PROMPTS), torch.arange(2), Plan(euler, (0.0, 0.5, 1.0))))
    with pytest.raises(NotDifferentiable, match="is for sampling"):
        generator.advance(state, grad=True)
