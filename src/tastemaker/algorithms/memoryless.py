"""The memoryless process of a flow, cut into steps, and the lean adjoint carried back through them.

With the schedule sigma_t^2 = 2 (1 - t) / t, and no other, x_1 does not depend on x_0, so that KL-regularised training
reaches p(x) exp(lambda r(x)) and the tuned velocity may be sampled with any noise, the ODE's among them
(Domingo-Enrich et al. 2024, arXiv 2409.08861; DRL, arXiv 2606.19162, Eqs. 24, 30 and 31):

    dX = [2 v(X, t) - X / t] dt + sigma_t dB,      da = -(grad_x [2 v_base(X, t) - X / t])^T a dt

Ways to cut it. `local_linear` (DRL, Eqs. 35, 38, 42) integrates the stiff term -X / t exactly and the rest to first
order; `euler_maruyama` (Eqs. 34, 37) is what it replaces. The paper's adjoint evaluates the base at x_{k+1}
(`published_scheme`). Ours (`local_linear_scheme`) is the exact transpose of the same step, evaluated at x_k, as in
the code of the first paper: on Gaussian data of variance 0.36 with T = 20, the tilt that lambda = 1 reaches is 1.05
times what it should be, with the paper's adjoint 1.21 times; near t = 1, where a step is no longer short beside 1 -
t, the paper's overshoots and changes its sign. `transposed_scheme` does so for any plan of one evaluation a step,
such as DDIM at eta = 1 on a diffusion's own grid. Eq. 42 sets delta = eps = dt, which moves the clock by one step,
u_k = t_k + dt, and costs a bias of the mean in dt. Letters: B batch, T steps (K in the papers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..protocols import Plan, Transition

Velocity = Callable[[Tensor, Tensor], Tensor]  # x (B, ...), t (B,) -> (B, ...)


def rows(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), of the type of `like`."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


def local_linear_coefficients(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Phi, Omega, V of the step from t to s (Eqs. 35, 38, 42), each of the shape of t; the dt of a grid is s - t."""
    dt = s - t
    u, u_next = t + dt, s + dt
    phi = u / u_next
    fresh = 1 - phi**2
    return phi, u_next * fresh, (1 + 2 * dt) * fresh - 2 / 3 * (u_next - phi**2 * u)


def sigma(t: Tensor, s: Tensor) -> Tensor:
    """The discrete sigma_k = sqrt(2 (1 - t_k + dt) / u_k), of the shape of t."""
    return (2 * (1 - t + (s - t)) / s).sqrt()


def local_linear(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """Phi x + Omega v + sqrt(V) noise; a step that ends at s = 1 is x + dt v without noise. A sampler; eta unused."""
    phi, omega, variance = local_linear_coefficients(t, s)
    v, last = velocity(x, t), s >= 1
    keep, push = torch.where(last, 1.0, phi), torch.where(last, s - t, omega)
    return Transition(rows(keep, x) * x + rows(push, x) * v, torch.where(last, 0.0, variance.clamp_min(0).sqrt()))


def euler_maruyama(velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
    """x + (2 v - x / u) dt + sigma sqrt(dt) noise, with the same last step. A sampler; eta is not used."""
    dt, last = s - t, s >= 1
    keep, push = torch.where(last, 1.0, 1 - dt / s), torch.where(last, dt, 2 * dt)
    std = torch.where(last, 0.0, sigma(t, s) * dt.sqrt())
    return Transition(rows(keep, x) * x + rows(push, x) * velocity(x, t), std)


def jacobian_times(velocity: Velocity, x: Tensor, t: Tensor, a: Tensor) -> Tensor:
    """[grad_x v(x, t)]^T a, (B, ...): one evaluation and one pass back."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(velocity(x, t), x, a)[0]


# One step of the adjoint: (base velocity, x_k, x_{k+1}, t_k, t_{k+1}, a_{k+1}) -> a_k
Back = Callable[[Velocity, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def back_local_linear(velocity: Velocity, x: Tensor, x_next: Tensor, t: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """Phi_k (a + 2 dt [grad v(x_{k+1}, t_{k+1})]^T a), Eq. 38."""
    phi = local_linear_coefficients(t, s)[0]
    return rows(phi, a) * (a + 2 * rows(s - t, a) * jacobian_times(velocity, x_next, s, a))


def back_euler(velocity: Velocity, x: Tensor, x_next: Tensor, t: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """a + dt (2 [grad v(x_{k+1}, t_{k+1})]^T a - a / u_{k+1}), Eq. 37."""
    dt = rows(s - t, a)
    return a + dt * (2 * jacobian_times(velocity, x_next, s, a) - a / (rows(s, a) + dt))


def transpose_of(plan: Plan) -> Back:
    """a_k = [grad of the step's mean at x_k]^T a_{k+1}."""

    def back(velocity: Velocity, x: Tensor, x_next: Tensor, t: Tensor, s: Tensor, a: Tensor) -> Tensor:
        return jacobian_times(lambda x, t: plan.sampler(velocity, x, t, s, plan.eta).mean, x, t, a)

    return back


@dataclass(frozen=True)
class Scheme:
    """A plan, how the adjoint goes back through its steps, and what the matching loss of step k weighs.

    The residual of step k is gain_k (v - v_base) + spread_k a_k: 2 / sigma_k and sigma_k (Eq. 32); for
    `transposed_scheme`, d mean / d v over the step's standard deviation, and that deviation. The KL of two paths is
    the expected sum over the steps of duration_k |gain_k (v - v_base)|^2 / 2. The loss of step k is weight_k^2 times
    the residual's square, 1 in the paper; the zero of the loss is the same for any weights.
    """

    plan: Plan
    back: Back
    gain: tuple[float, ...]  # T values; infinite where a step has no noise and cannot be trained
    spread: tuple[float, ...]
    duration: tuple[float, ...]
    weight: tuple[float, ...]

    @property
    def times(self) -> tuple[float, ...]:
        return self.plan.times

    @property
    def trained(self) -> list[int]:
        """The steps that a loss can be taken of."""
        return [k for k, gain in enumerate(self.gain) if gain < float("inf")]


def local_linear_scheme(steps: int) -> Scheme:
    """Local-linear steps, the paper's weights, and the exact transpose as the adjoint."""
    plan = Plan(local_linear, even_times(steps))
    return _of_sigma(plan, transpose_of(plan))


def published_scheme(steps: int) -> Scheme:
    """Local-linear steps with the adjoint of Eq. 38."""
    return _of_sigma(Plan(local_linear, even_times(steps)), back_local_linear)


def euler_maruyama_scheme(steps: int) -> Scheme:
    """What local-linear replaces: Eqs. 34 and 37."""
    return _of_sigma(Plan(euler_maruyama, even_times(steps)), back_euler)


def transposed_scheme(plan: Plan) -> Scheme:
    """Any memoryless plan whose sampler evaluates the velocity once, and is affine in x and v."""
    t, s = _spans(plan.times)
    step = plan.sampler(lambda x, t: torch.ones_like(x), torch.zeros(len(t), 1, dtype=t.dtype), t, s, plan.eta)
    gain, spread = tuple((step.mean[:, 0] / step.std).tolist()), tuple(step.std.tolist())
    one = (1.0,) * len(gain)
    return Scheme(plan, transpose_of(plan), gain, spread, one, one)


def in_data_units(scheme: Scheme) -> Scheme:
    """The same with weights by which the residual is an error of the predicted data, (1 - t) (v - v*), with 1 - t at
    least 0.05. With the paper's, a change of an x-prediction by 0.01 at t = 0.95 counts a thousand times what it does
    at t = 0.2: the gradient is that of the last steps, which have the least to learn."""
    weight = tuple(max(1 - t, 0.05) / gain for t, gain in zip(scheme.times, scheme.gain))
    return replace(scheme, weight=weight)


def in_velocity_units(scheme: Scheme) -> Scheme:
    """The same with weights by which the residual is an error of the velocity: between the paper's and the data's.
    Later steps, whose adjoints are the least noisy, count for more than with `in_data_units`."""
    return replace(scheme, weight=tuple(1 / gain for gain in scheme.gain))


def begun_at(scheme: Scheme, first: float) -> Scheme:
    """The same without a loss of the steps that begin before t = `first`; trajectories keep them. Raises
    TastemakerError where none is left."""
    gain = tuple(gain if t >= first - 1e-9 else float("inf") for t, gain in zip(scheme.times, scheme.gain))
    kept = replace(scheme, gain=gain)
    if not kept.trained:
        raise TastemakerError(
            f"expected a first time that leaves a step to train, got {first} with steps at {scheme.times}"
        )
    return kept


def even_times(steps: int) -> tuple[float, ...]:
    """steps + 1 evenly spaced times from 0 to 1."""
    return tuple(k / steps for k in range(steps + 1))


def _of_sigma(plan: Plan, back: Back) -> Scheme:
    t, s = _spans(plan.times)
    spread = sigma(t, s)
    gain, one = tuple((2 / spread).tolist()), (1.0,) * plan.steps
    return Scheme(plan, back, gain, tuple(spread.tolist()), tuple((s - t).tolist()), one)


def _spans(times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(T,), (T,) float64: where each step begins and ends."""
    grid = torch.tensor(times, dtype=torch.float64)
    return grid[:-1], grid[1:]


def require_memoryless(plan: Plan, tolerance: float = 0.01) -> None:
    """Raise TastemakerError unless the noise of a short step is that of sigma_t^2 = 2 (1 - t) / t."""
    t = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)
    s = t + 1e-4
    step = plan.sampler(lambda x, t: torch.zeros_like(x), torch.zeros(3, 1, dtype=t.dtype), t, s, plan.eta)
    found, wanted = step.std**2 / (s - t), 2 * (1 - t) / t
    if ((found / wanted - 1).abs() > tolerance).any():
        name = getattr(plan.sampler, "__name__", str(plan.sampler))
        raise TastemakerError(
            f"expected a memoryless schedule, sigma^2 = 2 (1 - t) / t = {float(wanted[1]):.3g} at t = 0.5; '{name}' "
            f"with eta = {plan.eta:.3g} has {float(found[1]):.3g}. With other noise the result depends on where a "
            "trajectory began, and is not p exp(lambda r). Use integrator=local-linear, `sde` with eta = sqrt(2), or "
            "`ddim` with eta = 1"
        )


def adjoints(scheme: Scheme, velocity: Velocity, states: Sequence[Tensor], last: Tensor) -> list[Tensor]:
    """a_0 .. a_T, each (B, ...): `last` is a_T = -lambda grad r(x_T), velocity the base's, states x_0 .. x_T. None
    is needed before the first step that is trained, and they are 0."""
    found, first = [last], scheme.trained[0]
    for k in reversed(range(len(states) - 1)):
        if k < first:
            found.append(torch.zeros_like(last))
            continue
        t, s = (last.new_full((len(last),), scheme.times[i]) for i in (k, k + 1))
        found.append(scheme.back(velocity, states[k], states[k + 1], t, s, found[-1]))
    return found[::-1]


def residual(v: Tensor, v_base: Tensor, adjoint: Tensor, gain: Tensor, spread: Tensor) -> Tensor:
    """gain (v - v_base) + spread a, (B, ...); gain and spread (B,). Its zero is v = v_base - (spread / gain) a."""
    return rows(gain, v) * (v - v_base) + rows(spread, v) * adjoint


def matching(v: Tensor, v_base: Tensor, adjoint: Tensor, gain: Tensor, spread: Tensor) -> Tensor:
    """|gain (v - v_base) + spread a|^2, a sum over the elements of each row, (B,): DRL, Eq. 32 and Algorithm 2."""
    return residual(v, v_base, adjoint, gain, spread).pow(2).flatten(1).sum(1)
