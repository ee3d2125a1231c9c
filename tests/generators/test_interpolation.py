"""Between a base and what it was tuned to: both ends exactly, and the tilt of w lambda where it is known."""

import copy
import math

import pytest
import torch
from gaussian import COVARIANCE, MEAN, times_of, velocity
from gaussian import Gaussian as Base
from small import tiny_flow

from tastemaker.errors import TastemakerError
from tastemaker.generators.interpolation import interpolated
from tastemaker.generators.samplers import heun
from tastemaker.protocols import Condition, Plan
from tastemaker.records import Ledger
from tastemaker.sampling import finish, sample
from tastemaker.search.ledger import metered

PROMPTS = ["a photo of a red cat", "a photo of two dogs", "a photo of a key"]
SLOPE = torch.tensor([0.7, -0.4], dtype=torch.float64)


class Tilted(Base):
    """Gaussian data tilted by exp(SLOPE x): the mean is moved by COVARIANCE SLOPE, the covariance stays."""

    def predict_velocity(self, x, t, condition):
        moved = (COVARIANCE @ SLOPE).to(x)
        return moved + velocity(x - t[:, None] * moved, t)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1.7])
def test_w_draws_the_gaussian_that_is_tilted_w_times_as_much(weight):
    plan = Plan(heun, tuple(times_of(20).tolist()))
    made = interpolated(Base(plan), _alike(Tilted(plan)), weight)
    condition, seeds = Condition.of([""] * 3), torch.arange(3)
    base, drawn = (finish(g, g.start(condition, seeds)).x.double() for g in (Base(plan), made))
    torch.testing.assert_close(drawn - base, (weight * COVARIANCE @ SLOPE).expand(3, 2), rtol=0, atol=1e-4)
    assert not MEAN.equal(MEAN + COVARIANCE @ SLOPE)


def _alike(tilted):
    """Of the same class as the base, as a tuned generator is."""
    made = Base(tilted.plan)
    made.predict_velocity = tilted.predict_velocity
    return made


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_both_ends_are_the_generators_to_the_last_bit(guidance):
    base, tuned = tiny_flow(seed=0), tiny_flow(seed=1)
    found = [sample(interpolated(base, tuned, w), PROMPTS, [0, 1, 2], guidance=guidance) for w in (0.0, 0.5, 1.0)]
    ends = [sample(g, PROMPTS, [0, 1, 2], guidance=guidance) for g in (base, tuned)]
    assert found[0].equal(ends[0]) and found[2].equal(ends[1])
    assert not found[1].equal(ends[0]) and not found[1].equal(ends[1])


def test_the_velocity_is_the_formula_and_the_generators_stay_as_they_are():
    base, tuned = tiny_flow(seed=0), tiny_flow(seed=1)
    before = [copy.deepcopy(g.network.state_dict()) for g in (base, tuned)]
    made, condition = interpolated(base, tuned, 0.25), Condition.of(PROMPTS)
    x, t = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        v_base, v_tuned, v = (g.velocity(x, t, condition) for g in (base, tuned, made))
    torch.testing.assert_close(v, v_base + 0.25 * (v_tuned - v_base))
    for generator, weights in zip((base, tuned), before):
        assert all(value.equal(weights[name]) for name, value in generator.network.state_dict().items())
    ledger = Ledger()
    with metered(made.network, ledger):
        sample(made, PROMPTS, [0, 1, 2], guidance=1.0)
    assert ledger.network_evaluations == 3 * made.plan.steps  # of both networks each


def test_what_does_not_belong_together_is_refused(tmp_path):
    with pytest.raises(TastemakerError, match=r"one kind, shape and vocabulary, got TinyFlow of \(3, 16, 16\) and"):
        interpolated(tiny_flow(), tiny_flow(size=32), 0.5)
    with pytest.raises(TastemakerError, match="a finite weight"):
        interpolated(tiny_flow(), tiny_flow(), math.inf)
    with pytest.raises(TastemakerError, match="an interpolation has the weights of two generators"):
        interpolated(tiny_flow(), tiny_flow(), 0.5).save(tmp_path)
