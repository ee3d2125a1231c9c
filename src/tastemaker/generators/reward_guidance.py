"""Discriminator guidance: a reward's gradient steers the velocity while a picture is drawn, and nothing is trained.

Of two processes with densities p_t and q_t let r_t = log q_t / p_t. Their scores differ by its gradient, and with
score = (t v - x) / (1 - t) their velocities by

    v_q(x, t) = v_p(x, t) + (1 - t) / t grad_x r_t(x).                                                   (1)

The best discriminator between the two at time t has r_t as its logit (Kim et al. 2022, arXiv 2211.17091, Theorem 1).
Where q = p exp(r) / Z at t = 1,

    r_t(x) = log E_p[exp r(X_1) | X_t = x] + const ~ r(x + (1 - t) v_p(x, t)),                           (2)

a reward of the predicted picture in place of a discriminator that has seen noise. (2) is exact for Gaussian data and
a linear r, and near t = 1; elsewhere it takes the reward of a mean for a mean over pictures, worst where the picture
is still undecided. So early times are left out. A scale multiplies r, as lambda does in DRL, with which this is to be
compared; it costs a pass back through network, decoder and reward at every step. Letters: B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import NotDifferentiable, expect
from ..protocols import Condition, Reward, State, Transition
from .paths import expand, velocity_to_x1
from .samplers import Velocity

# x (B, ...), the data x1 (B, ...) that it lets expect, t (B,), the condition -> r_t (B,), NaN where there is none
LogRatio = Callable[[Tensor, Tensor, Tensor, Condition], Tensor]


def steered_velocity(
    velocity: Velocity, ratio: LogRatio, x: Tensor, t: Tensor, condition: Condition, scale: float, after: float
) -> Tensor:
    """Equation (1) with scale r_t, (B, ...), without a gradient. Rows with t below `after`, at 0 or 1, and rows whose
    r_t is NaN keep their velocity."""
    acts = (t >= after) & (t > 0) & (t < 1)
    if not acts.any():
        return velocity(x, t)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, t)
        r = ratio(x, velocity_to_x1(v, x, t), t, condition)
        acts = acts & ~r.isnan()
        (gradient,) = torch.autograd.grad(torch.where(acts, r, 0.0).sum(), x)
    force = expand(scale * (1 - t) / torch.where(acts, t, 1.0), x) * gradient
    return v.detach() + torch.where(expand(acts, x) > 0, force, 0.0)


def steered(
    sampler: Callable[..., Transition], ratio: LogRatio, condition: Condition, scale: float, after: float
) -> Callable[..., Transition]:
    """The sampler with every velocity steered; condition: of the rows that it will be called with."""

    def step(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
        if torch.is_grad_enabled():
            raise NotDifferentiable("guidance by a reward is for sampling; train with `train drl` or `train refl`")
        return sampler(lambda x, t: steered_velocity(velocity, ratio, x, t, condition, scale, after), x, t, s, eta)

    return step


def guided_by(generator: Any, ratio: LogRatio, scale: float = 1.0, after: float = 0.1) -> Any:
    """The generator with its steps steered by scale r_t for t >= after, beside any guidance of its own.

    Raises TastemakerError for `after` outside [0, 1].
    """
    expect(0 <= after <= 1, "a first time of the guidance from 0 to 1", after)
    made = copy.copy(generator)

    def transition(state: State) -> Transition:
        sampler = steered(state.plan.sampler, ratio, state.condition, scale, after)
        return generator.transition(replace(state, plan=replace(state.plan, sampler=sampler)))

    made.transition = transition
    return made


def of_predicted_picture(generator: Any, reward: Reward) -> LogRatio:
    """Equation (2): the reward of the decoded prediction, not clamped. Raises NotDifferentiable for a reward without
    a gradient."""
    if not reward.differentiable:
        raise NotDifferentiable(f"guidance needs a reward with a gradient; '{reward.name}' has none. Use best-of-n")

    def ratio(x: Tensor, x1: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return reward.score(generator.codec.decode(x1), condition.prompts)

    return ratio
