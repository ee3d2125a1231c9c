"""The memoryless process and its adjoints against Gaussian data, where both have closed forms."""

import math

import numpy as np
import pytest
import torch
from gaussian_flow import MEAN, SLOPE, TILTED, VARIANCE, exact_velocity, moments
from small import tiny_flow

from tastemaker.algorithms.memoryless import (
    adjoints,
    begun_at,
    euler_maruyama,
    euler_maruyama_scheme,
    even_times,
    in_data_units,
    local_linear,
    local_linear_coefficients,
    local_linear_scheme,
    matching,
    published_scheme,
    require_memoryless,
    sigma,
    transposed_scheme,
)
from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import ddim, ddpm, euler, sde
from tastemaker.protocols import Condition, Plan

SCHEMES = {"ours": local_linear_scheme, "published": published_scheme, "euler-maruyama": euler_maruyama_scheme}


def tilted(steps, scheme=None):
    """v* = v - sigma_k^2 a_k / 2 with the scheme's own adjoint of r = SLOPE x."""
    scheme = scheme or local_linear_scheme(steps)
    zeros = [torch.zeros(1, 1, dtype=torch.float64)] * (steps + 1)
    a = adjoints(scheme, exact_velocity, zeros, torch.full((1, 1), -SLOPE, dtype=torch.float64))

    def velocity(x, t):
        k = round(float(t[0]) * steps)
        return exact_velocity(x, t) - scheme.spread[k] / scheme.gain[k] * a[k]

    return velocity


def one(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_first_step_of_a_hundred():
    phi, omega, variance = local_linear_coefficients(one(0.0), one(0.01))
    assert (float(phi), float(omega), float(variance)) == pytest.approx((0.5, 0.015, 0.75333), abs=1e-5)


def test_short_steps_are_those_of_the_equation():
    """Omega -> 2 dt, V -> sigma^2 dt, Phi -> 1 - dt / t."""
    t, dt = one(0.2, 0.5, 0.8), 1e-5
    phi, omega, variance = local_linear_coefficients(t, t + dt)
    torch.testing.assert_close(omega / (2 * dt), torch.ones(3).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(variance / (2 * (1 - t) / t * dt), torch.ones(3).double(), rtol=2e-4, atol=0)
    torch.testing.assert_close((1 - phi) / dt, 1 / t, rtol=1e-4, atol=0)
    torch.testing.assert_close(sigma(t, t + dt) ** 2, 2 * (1 - t) / t, rtol=1e-4, atol=0)


def test_local_linear_keeps_the_variance_with_twenty_steps():
    for velocity in (exact_velocity, tilted(20), tilted(20, published_scheme(20))):
        ours, theirs = (moments(f, velocity, even_times(20))[1] for f in (local_linear, euler_maruyama))
        assert ours == pytest.approx(VARIANCE, rel=0.03)
        assert theirs > 1.1 * VARIANCE  # what it replaces


@pytest.mark.parametrize(
    "steps, base, aimed, ode",
    [
        (20, 1.5589, 1.9075, (1.8262, 0.3132)),
        (50, 1.5263, 1.8398, (1.8037, 0.3405)),
        (100, 1.5136, 1.8147, (1.7959, 0.3501)),
    ],
)
def test_means_and_the_ode_apart(steps, base, aimed, ode):
    """Both means lie above the truth by a bias in dt, which comes from delta = eps = dt; so does the ODE's."""
    times = even_times(steps)
    assert moments(local_linear, exact_velocity, times)[0] == pytest.approx(base, abs=1e-4)
    published = tilted(steps, published_scheme(steps))
    assert moments(local_linear, published, times)[0] == pytest.approx(aimed, abs=1e-4)
    assert moments(euler, published, times) == pytest.approx(ode, abs=1e-4)


@pytest.mark.parametrize("steps, ours, published", [(20, 0.06, 0.20), (50, 0.03, 0.08), (100, 0.02, 0.04)])
def test_the_tilt_of_lambda_one_is_nearer_with_the_exact_transpose(steps, ours, published):
    """How far the reward moves the mean, over SLOPE VARIANCE, by the process and by the ODE."""

    def tilt(sampler, scheme):
        times = even_times(steps)
        moved = moments(sampler, tilted(steps, scheme(steps)), times)[0]
        return (moved - moments(sampler, exact_velocity, times)[0]) / (SLOPE * VARIANCE)

    assert tilt(local_linear, local_linear_scheme) == pytest.approx(1, abs=ours)
    assert tilt(euler, local_linear_scheme) == pytest.approx(1, abs=ours)
    assert tilt(local_linear, published_scheme) > 1 + published


@pytest.mark.parametrize("sampler", [local_linear, euler_maruyama])
def test_the_marginal_converges_at_first_order(sampler):
    counts = [40, 80, 160, 320, 640]
    for velocity_of, truth in ((lambda n: exact_velocity, MEAN), (tilted, TILTED)):
        errors = [abs(moments(sampler, velocity_of(n), even_times(n))[0] - truth) for n in counts]
        slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
        assert slope == pytest.approx(1, abs=0.1)
    assert moments(sampler, exact_velocity, even_times(640))[1] == pytest.approx(VARIANCE, rel=0.01)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_adjoint_converges_to_the_solution_of_its_equation(name):
    """a(t) = a(1) t VARIANCE / (t^2 VARIANCE + (1 - t)^2): 2 v_x is d log of that denominator."""
    counts, errors = [40, 80, 160, 320], []
    for n in counts:
        zeros = [torch.zeros(1, 1, dtype=torch.float64)] * (n + 1)
        found = torch.cat(adjoints(SCHEMES[name](n), exact_velocity, zeros, one(-SLOPE)[:, None]))[:, 0]
        t = one(*even_times(n))
        errors.append(float((found + SLOPE * t * VARIANCE / (t**2 * VARIANCE + (1 - t) ** 2)).abs().max()))
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1, abs=0.15)


def test_a_transposed_adjoint_is_the_gradient_of_the_steps_without_noise():
    generator, steps = tiny_flow(), 5
    scheme = transposed_scheme(Plan(ddpm, uniform_times(steps, 0.05, 0.95)))
    condition = generator.prepare(Condition.of(["a photo of a cat", "a photo of two dogs"]))
    torch.manual_seed(0)
    draws, direction = torch.randn(steps, 2, *generator.shape), torch.randn(2, *generator.shape)
    field = lambda x, t: generator.velocity(x, t, condition)  # noqa: E731

    def run(x):
        states = [x]
        for k in range(steps):
            t, s = (torch.full((2,), scheme.times[i]) for i in (k, k + 1))
            step = scheme.plan.sampler(field, states[-1], t, s, 0.0)
            states.append(step.mean + step.std[:, None, None, None] * draws[k])
        return states

    start = torch.randn(2, *generator.shape, requires_grad=True)
    states = run(start)
    (whole,) = torch.autograd.grad((states[-1] * direction).sum(), start)
    found = adjoints(scheme, field, [x.detach() for x in states], direction)
    torch.testing.assert_close(found[0], whole, rtol=1e-4, atol=1e-6)
    along = torch.randn(2, *generator.shape)
    with torch.no_grad():
        ends = [(run(start + h * along)[-1] * direction).sum() for h in (1e-2, -1e-2)]
    assert float(ends[0] - ends[1]) / 2e-2 == pytest.approx(float((found[0] * along).sum()), rel=2e-2)


def test_the_zero_of_the_residual_is_the_tilted_velocity():
    scheme = local_linear_scheme(20)
    v_base, a = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    gain, spread = (torch.tensor([v[k] for k in (0, 10, 19)]) for v in (scheme.gain, scheme.spread))
    best = v_base - (spread**2 / 2)[:, None, None, None] * a
    assert matching(best, v_base, a, gain, spread).max() < 1e-6
    off = matching(best + 0.1, v_base, a, gain, spread)
    torch.testing.assert_close(off, 32 * (0.2 / spread) ** 2, rtol=1e-3, atol=0)  # a sum over 2 x 4 x 4


def test_in_data_units_the_residual_is_an_error_of_the_predicted_data():
    scheme = in_data_units(local_linear_scheme(20))
    v, v_base, a = torch.randn(3, 1, 2, 2, 2).double()
    for k in (0, 10, 19):
        gain, spread = (one(value[k]) for value in (scheme.gain, scheme.spread))
        best = v_base - scheme.spread[k] ** 2 / 2 * a
        expected = max(1 - scheme.times[k], 0.05) ** 2 * (v - best).pow(2).sum()
        found = scheme.weight[k] ** 2 * matching(v, v_base, a, gain, spread)
        assert float(found) == pytest.approx(float(expected))
    native = in_data_units(transposed_scheme(Plan(ddpm, uniform_times(4))))
    assert native.weight[-1] == 0 and native.trained == [0, 1, 2]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(local_linear, even_times(10)),
        Plan(euler_maruyama, even_times(10)),
        Plan(sde, uniform_times(10), math.sqrt(2)),
        Plan(ddim, uniform_times(10), 1.0),
        Plan(ddpm, uniform_times(10)),
    ],
    ids=lambda p: p.sampler.__name__,
)
def test_memoryless_plans_are_taken(plan):
    require_memoryless(plan)


@pytest.mark.parametrize("sampler, eta", [(euler, 0.0), (sde, 0.7), (sde, 1.0), (ddim, 0.5)])
def test_a_schedule_with_memory_is_refused(sampler, eta):
    with pytest.raises(TastemakerError, match=rf"memoryless schedule.* '{sampler.__name__}' with eta = {eta:.3g}"):
        require_memoryless(Plan(sampler, uniform_times(10), eta))


@pytest.mark.parametrize("sampler", [local_linear, euler_maruyama])
def test_the_last_step_is_an_euler_step_without_noise(sampler):
    x, t = torch.randn(3, 2), torch.full((3,), 0.95)
    step = sampler(exact_velocity, x, t, torch.ones(3), 0.0)
    torch.testing.assert_close(step.mean, euler(exact_velocity, x, t, torch.ones(3), 0.0).mean)
    assert not step.std.any()


def test_steps_before_the_first_time_are_not_trained():
    scheme = begun_at(local_linear_scheme(10), 0.3)
    assert scheme.trained == list(range(3, 10)) and scheme.plan.steps == 10
    with pytest.raises(TastemakerError, match="leaves a step to train"):
        begun_at(local_linear_scheme(10), 0.95)
