"""Samplers and conversions against Gaussian data, where everything has a closed form."""

import math

import gaussian
import numpy as np
import pytest
import torch

from tastemaker.generators import paths
from tastemaker.generators.samplers import EVALUATIONS, SAMPLERS, ddim, ddpm, euler, heun, sde

NOISY = [(sde, 0.7), (sde, math.sqrt(2)), (ddim, 0.5), (ddim, 1.0), (ddpm, 0.0)]


@pytest.mark.parametrize("sampler, order", [(euler, 1), (heun, 2)])
def test_deterministic_samplers_converge_at_their_order(sampler, order):
    x0 = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = [10, 20, 40, 80, 160]
    errors = [
        (gaussian.run(sampler, x0, gaussian.times_of(n)) - gaussian.end_of(x0)).pow(2).mean().sqrt() for n in counts
    ]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("sampler, eta", NOISY)
def test_stochastic_samplers_have_the_right_marginal(sampler, eta):
    """Mean and covariance are carried through the steps exactly; their error must go with the step size.

    From t = 0, where sigma_t is infinite, sde at eta = 0.7 forgets its first steps only as T^-0.49.
    """

    def error(steps, start):
        mean, cov = gaussian.marginal(sampler, eta, steps, start)
        return float(max((mean - gaussian.MEAN).abs().max(), (cov - gaussian.COVARIANCE).abs().max()))

    assert error(400, 0.0) < 0.012
    assert error(400, 0.2) < 0.012 and error(400, 0.2) < error(50, 0.2) / 6


@pytest.mark.parametrize("sampler", [sde, ddim])
def test_without_noise_every_sampler_is_euler(sampler):
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.0, 0.1, 0.5, 0.9, 0.99], dtype=torch.float64)
    s = torch.tensor([0.1, 0.2, 0.7, 1.0, 1.0], dtype=torch.float64)
    ours, theirs = sampler(gaussian.velocity, x, t, s, 0.0), euler(gaussian.velocity, x, t, s, 0.0)
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=1e-12)
    assert not ours.std.any() and not theirs.std.any()


def test_sde_step_equals_its_equation():
    x, v = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    t, s, eta = (torch.tensor([k], dtype=torch.float64) for k in (0.4, 0.5, 0.7))
    step = sde(lambda x, t: v, x, t, s, float(eta))
    sigma2 = 0.49 * 0.6 / 0.4
    score = (0.4 * v - x) / 0.6
    torch.testing.assert_close(step.mean, x + 0.1 * (v + sigma2 / 2 * score))
    torch.testing.assert_close(step.std, torch.tensor([math.sqrt(sigma2 * 0.1)], dtype=torch.float64))


def test_ddpm_is_the_posterior_of_a_known_picture():
    """With x1 known, q(x_s | x_t, x1) of DDPM (Eqs. 6 and 7), rescaled to the straight path."""
    t, s, x1, x = 0.4, 0.6, 1.5, 0.2
    a_t, a_s = ((k**2 / (k**2 + (1 - k) ** 2)) for k in (t, s))  # alphas_cumprod
    norm_t, norm_s = (1 / math.sqrt(k**2 + (1 - k) ** 2) for k in (t, s))
    beta = 1 - a_t / a_s
    mean = math.sqrt(a_s) * beta / (1 - a_t) * x1 + math.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t) * (x * norm_t)
    std = math.sqrt((1 - a_s) / (1 - a_t) * beta)
    one = torch.ones(1, 1, dtype=torch.float64)
    step = ddpm(lambda x, t_: (x1 * one - x) / (1 - t), x * one, t * one[0], s * one[0], 0.0)
    assert float(step.mean) == pytest.approx(mean / norm_s) and float(step.std) == pytest.approx(std / norm_s)


@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_as_declared(name):
    calls = []

    def velocity(x, t):
        calls.append(len(x))
        return gaussian.velocity(x, t)

    x, t = torch.zeros(3, 2).double(), torch.full((3,), 0.3).double()
    SAMPLERS[name](velocity, x, t, t + 0.1, 0.5)
    assert len(calls) == EVALUATIONS[SAMPLERS[name]]


def test_heun_ends_with_an_euler_step_row_by_row():
    x = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    t, s = torch.tensor([0.9, 0.9]).double(), torch.tensor([1.0, 0.95]).double()
    both = heun(gaussian.velocity, x, t, s, 0.0).mean
    torch.testing.assert_close(both[:1], euler(gaussian.velocity, x[:1], t[:1], s[:1], 0.0).mean)
    torch.testing.assert_close(both[1:], heun(gaussian.velocity, x[1:], t[1:], s[1:], 0.0).mean)


def test_conversions_go_round():
    g = torch.Generator().manual_seed(3)
    x1, x0 = (torch.randn(6, 3, 4, 4, dtype=torch.float64, generator=g) for _ in range(2))
    t = torch.tensor([0.01, 0.2, 0.4, 0.6, 0.8, 0.99], dtype=torch.float64)
    x, v = paths.interpolate(x1, x0, t), x1 - x0
    close = {"rtol": 0, "atol": 1e-11}
    torch.testing.assert_close(paths.velocity_to_x1(v, x, t), x1, **close)
    torch.testing.assert_close(paths.velocity_to_eps(v, x, t), x0, **close)
    torch.testing.assert_close(paths.x1_to_velocity(x1, x, t), v, **close)
    torch.testing.assert_close(paths.eps_to_velocity(x0, x, t), v, **close)
    alpha = t * paths.vp_scale(t)
    torch.testing.assert_close(paths.vp_time(alpha), t, **close)
    a, sigma = alpha.reshape(-1, 1, 1, 1), (1 - alpha**2).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(paths.expand(paths.vp_scale(t), x) * x, a * x1 + sigma * x0, **close)
    torch.testing.assert_close(paths.vp_to_velocity(a * x0 - sigma * x1, x, t), v, **close)


def test_the_divisor_has_a_floor():
    x, x1, t = torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.99])
    torch.testing.assert_close(paths.x1_to_velocity(x1, x, t, floor=0.05), torch.full((1, 2), 20.0))
