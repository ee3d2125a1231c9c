"""How a masked-token generator's trajectory runs: when how many tokens are known, and which.

A time t in [0, 1] says which share of the tokens is known, so a schedule is a grid of times. In every step each
masked position draws a token, and a sampler says which positions stay masked for another step. Samplers are siblings
with one signature, `sampler(step: Step) -> (B, N) bool`, and stand in `Plan.sampler`:

| sampler | what stays masked | log-probability |
|---|---|---|
| `confidence` | the least probable draws (MaskGIT, Chang et al. 2022, arXiv 2202.04200) | none |
| `show_o` | the same, with the temperature and the ties of Show-o's release (arXiv 2408.12528) | none |
| `amused` | the same, with a temperature that falls evenly to 0 (AmusedScheduler of diffusers) | none |
| `random_order` | what comes last in an order drawn at the start | exact |
| `raster` | what comes last in reading order: next-token generation (LlamaGen, arXiv 2406.06525) | exact |

The first three choose by what was drawn, so which tokens are kept depends on all that were thrown away, and no
density can be written down. The last two do not look at the tokens: log p is the sum of those of the tokens revealed.
`Plan.temperature` is the scale of the Gumbel noise with which the first three choose; tokens themselves are always
drawn at temperature 1. Letters: B batch, N tokens, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName, expect
from ..protocols import Plan

MASK = -1  # in place of a token that is not known


@dataclass(frozen=True)
class Step:
    """What a sampler sees of one step."""

    log_p: Tensor  # (B, N) of the token that was drawn at each position
    known: Tensor  # (B, N) bool, before the step
    stay: Tensor  # (B,) int64: how many are to stay masked
    order: Tensor  # (B, N) int64: the place of each position in the order drawn at the start
    uniform: Tensor  # (B, N) in [0, 1)
    index: Tensor  # (B,) int64, from 0
    plan: Plan


Sampler = Callable[[Step], Tensor]


def confidence(step: Step) -> Tensor:
    """The `stay` least of log p + temperature (1 - k / T) Gumbel, k counted from 1; exactly as many, ties or not."""
    progress = (step.index + 1) / step.plan.steps
    noisy = step.log_p + (step.plan.temperature * (1 - progress))[:, None].to(step.log_p) * gumbel(step.uniform)
    return ranks(noisy.masked_fill(step.known, torch.inf)) < step.stay[:, None]


def show_o(step: Step) -> Tensor:
    """As `confidence`, with the released temperature, temperature (1 - 1 / T) (1 - 2 / T) ... (1 - k / T), which is
    next to 0 half way through, and strictly below the threshold, so that of equals fewer stay. The temperature is a
    function of the step; the release multiplies a variable that its next candidate goes on with."""
    return _strictly_below(step, torch.tensor(released_temperatures(step.plan.steps, step.plan.temperature)))


def amused(step: Step) -> Tensor:
    """As `show_o`, with the temperature (1 - (k - 1) / (T - 1)) of `Plan.temperature`: all of it at the first step,
    none at the last."""
    return _strictly_below(step, torch.linspace(step.plan.temperature, 0, step.plan.steps))


def _strictly_below(step: Step, heats: Tensor) -> Tensor:
    """heats (T,): the temperature of each step."""
    heat = heats[step.index.cpu()]
    noisy = step.log_p + heat[:, None].to(step.log_p) * gumbel(step.uniform)
    noisy = noisy.masked_fill(step.known, torch.finfo(noisy.dtype).max)
    return noisy < noisy.sort(1).values.gather(1, step.stay[:, None])


def random_order(step: Step) -> Tensor:
    """What comes last in the order drawn at the start."""
    return step.order >= step.order.shape[1] - step.stay[:, None]


def raster(step: Step) -> Tensor:
    """What comes last in reading order. With `token_by_token(N)` one after the other."""
    places = torch.arange(step.known.shape[1], device=step.known.device)
    return places >= len(places) - step.stay[:, None]


SAMPLERS: dict[str, Sampler] = {f.__name__: f for f in (confidence, show_o, amused, random_order, raster)}
FACTORISED = (random_order, raster)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise of uniform numbers in [0, 1)."""
    return -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()


def ranks(values: Tensor) -> Tensor:
    """(B, N) -> (B, N) int64: 0 for a row's smallest, the first of equals before the others."""
    return values.argsort(dim=1, stable=True).argsort(dim=1)


def released_temperatures(steps: int, start: float = 1.0) -> list[float]:
    """The temperature of each step of `show_o`."""
    heats = [start]
    for k in range(1, steps + 1):
        heats.append(heats[-1] * (1 - k / steps))
    return heats[1:]


def staying(masked: Tensor, tokens: int, time: Tensor, last: Tensor) -> Tensor:
    """How many of `masked` (B,) stay masked: floor(N (1 - t)), at least 1 fewer than before, and none after the last
    step; at least 1 before it. time: at the end of the step, (B,) float64."""
    wanted = (tokens * (1 - time).float()).floor().long()
    return torch.where(last, 0, torch.minimum(wanted, masked - 1).clamp_min(1))


def _grid(steps: int, masked_share: Callable[[Tensor], Tensor]) -> tuple[float, ...]:
    expect(steps >= 1, "at least one step", steps)
    share = masked_share((torch.arange(1, steps, dtype=torch.float64) / steps).float())
    return (0.0, *(1 - share.double()).tolist(), 1.0)


def cosine_times(steps: int) -> tuple[float, ...]:
    """Share masked after step k: cos(pi k / 2 T), slow at first (arXiv 2202.04200, 3.3). Schedules are in float32, as
    Show-o has them: two thirds of the way through 127 of 256 tokens are masked, not 128."""
    return _grid(steps, lambda u: (u * math.pi * 0.5).cos())


def linear_times(steps: int) -> tuple[float, ...]:
    """Share masked after step k: 1 - k / T."""
    return _grid(steps, lambda u: 1 - u)


def pow_times(steps: int, exponent: float = 2.0) -> tuple[float, ...]:
    """Share masked after step k: 1 - (k / T)^exponent."""
    expect(exponent > 0, "an exponent above 0", exponent)
    return _grid(steps, lambda u: 1 - u**exponent)


def token_by_token(tokens: int) -> tuple[float, ...]:
    """N steps of one token each, whatever rounding says."""
    expect(tokens >= 1, "at least one token", tokens)
    return (0.0, *((k - 0.5) / tokens for k in range(1, tokens)), 1.0)


def times_of(schedule: str, steps: int) -> tuple[float, ...]:
    """`cosine`, `linear`, `pow`, or `pow3` and its kind. Raises UnknownName for another schedule."""
    if schedule in ("cosine", "linear"):
        return {"cosine": cosine_times, "linear": linear_times}[schedule](steps)
    name, exponent = schedule[:3], schedule[3:] or "2"
    if name != "pow" or not exponent.replace(".", "", 1).isdigit():
        raise UnknownName("schedule", schedule, ["cosine", "linear", "pow", "pow3"])
    return pow_times(steps, float(exponent))


def require_masked_plan(plan: Plan) -> None:
    """Raise TastemakerError for the plan of a flow."""
    if plan.sampler not in SAMPLERS.values():
        raise TastemakerError(
            f"a masked-token generator draws with {', '.join(SAMPLERS)} of generators/unmasking.py, not with "
            f"'{getattr(plan.sampler, '__name__', plan.sampler)}', which needs a velocity"
        )
