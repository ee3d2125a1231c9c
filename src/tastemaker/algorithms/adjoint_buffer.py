"""Trajectories with their lean adjoints, drawn by a policy and kept in the host's memory (DRL, arXiv 2606.19162,
Algorithm 2 and Appendix H). Letters: B rows of a piece, N trajectories, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..protocols import Condition, Plan, Reward, State
from ..ranks import gather
from ..records import Prompt
from .memoryless import Scheme, adjoints
from .rollout import judge

MOST_GROWTH = 1e4  # an adjoint that grows more on its way back has exploded


@dataclass(frozen=True)
class Drawn:
    """Some trajectories: states x_0 .. x_T and adjoints a_0 .. a_T, each (B, ...), and rewards (B,)."""

    states: list[Tensor]
    adjoints: list[Tensor]
    scores: Tensor


def buffer_bytes(count: int, steps: int, shape: Sequence[int], half: bool) -> int:
    """Of x_0 .. x_{T-1} and a_0 .. a_{T-1} for `count` trajectories of states of this shape."""
    return count * steps * torch.Size(shape).numel() * (4 if half else 8)


def trajectory(generator: Any, condition: Condition, seeds: Tensor, plan: Plan) -> list[State]:
    """The T + 1 states of a rollout of the policy as it is, without a gradient."""
    states = [generator.start(condition, seeds, plan)]
    while not states[-1].done.all():
        states.append(generator.advance(states[-1]))
    return states


def terminal(generator: Any, reward: Reward, state: State, strength: float) -> tuple[Tensor, Tensor]:
    """a_T = -lambda grad r at the last state, (B, ...), through decoder and reward, and the rewards (B,). A reward
    that is NaN has the adjoint 0."""
    with torch.enable_grad():
        x = state.x.detach().requires_grad_()
        images = generator.preview(replace(state, x=x), grad=True)
        scores = judge(reward, images, state.condition.prompts)
        (gradient,) = torch.autograd.grad(torch.where(scores.isnan(), 0.0, scores).sum(), x)
    return -strength * gradient, scores.detach()


def with_adjoints(
    generator: Any,
    base: Any,
    reward: Reward,
    prompts: Sequence[Prompt],
    seeds: Tensor,
    strength: float,
    scheme: Scheme,
) -> Drawn:
    """One trajectory of the policy per prompt and seed (B,), and its adjoints under the base; strength: lambda."""
    condition = generator.prepare(Condition.of(prompts))
    states = trajectory(generator, condition, seeds, scheme.plan)
    last, scores = terminal(generator, reward, states[-1], strength)
    x = [state.x for state in states]
    return Drawn(x, adjoints(scheme, lambda x, t: base.velocity(x, t, condition), x, last), scores)


def on_host(drawn: Drawn, half: bool = False) -> dict[str, Tensor]:
    """What the buffer keeps: x and adjoint (T, B, ...), in float16 and bfloat16 where `half`; rewards, root mean
    square of x_T and where the adjoint burst, each (B,)."""
    x = torch.stack([x.cpu() for x in drawn.states[:-1]])
    adjoint = torch.stack([a.cpu() for a in drawn.adjoints[:-1]])
    norms = torch.stack([a.flatten(1).norm(dim=1).cpu() for a in drawn.adjoints])  # (T + 1, B)
    return {
        "x": x.half() if half else x,
        "adjoint": adjoint.bfloat16() if half else adjoint,
        "reward": drawn.scores.cpu(),
        "rms": drawn.states[-1].pow(2).flatten(1).mean(1).sqrt().cpu(),
        "burst": burst_at(norms),
    }


def burst_at(norms: Tensor) -> Tensor:
    """(T + 1, B) norms of adjoints -> (B,) int64: the latest step at which the adjoint is not finite, or more than
    MOST_GROWTH times as long as at the end; -1 where there is none."""
    bad = ~norms.isfinite() | (norms > MOST_GROWTH * norms[-1])
    return torch.where(bad, torch.arange(len(norms))[:, None], -1).amax(0)


def checked(parts: Sequence[dict[str, Tensor]], name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The buffer: x and adjoint (T, N, ...), prompt and `sound` (N,); and figures of the round, over all processes.

    Where `sound` is false a trajectory has no reward or its adjoint burst: it holds zeros, and is not to be trained
    on. name: of the reward. Raises TastemakerError where no picture has a reward, or most adjoints burst.
    """
    drawn = {key: torch.cat([p[key] for p in parts], 1 if key in ("x", "adjoint") else 0) for key in parts[0]}
    reward, burst = gather(drawn["reward"]), gather(drawn["burst"])
    if reward.isnan().all():
        raise TastemakerError(f"'{name}' gave no score for any of the {len(reward)} pictures: nothing to learn from")
    _refuse_bursts(burst, len(drawn["x"]))
    figures = {
        "reward": float(reward.nanmean()),
        "no_score": float(reward.isnan().sum()),
        "exploded": float((burst >= 0).sum()),
        "state_rms": float(gather(drawn["rms"]).mean()),
    }
    sound = ~drawn["reward"].isnan() & (drawn["burst"] < 0)
    for key in ("x", "adjoint"):
        drawn[key][:, ~sound] = 0
    return {"x": drawn["x"], "adjoint": drawn["adjoint"], "prompt": drawn["prompt"], "sound": sound}, figures


def shortened(adjoint: Tensor, sound: Tensor, multiple: float) -> Tensor:
    """adjoint (T, N, ...), sound (N,) -> adjoints of at most `multiple` times the median length of their step, with
    their directions. Lengths are heavy-tailed, most of all at early times, where one in ten is ten times the median:
    those would be all that a step learns from, or be left out with what they say."""
    lengths = adjoint.flatten(2).float().norm(dim=2)  # (T, N)
    everywhere = gather(torch.where(sound[:, None], lengths.T, torch.nan))  # (all rows, T)
    share = multiple * everywhere.nanmedian(0).values[:, None] / lengths.clamp_min(1e-30)
    return adjoint * share.clamp_max(1).reshape(*share.shape, *[1] * (adjoint.ndim - 2)).to(adjoint.dtype)


def _refuse_bursts(burst: Tensor, steps: int) -> None:
    count = int((burst >= 0).sum())
    if 2 * count >= len(burst):
        raise TastemakerError(
            f"the adjoints of {count} of {len(burst)} trajectories are not finite, or grew more than {MOST_GROWTH:g} "
            f"times on their way back, at step {int(burst.max())} of {steps}. Use integrator=local-linear, more "
            "integration_steps or a lower strength, and look at the reward's gradient; the weights are still those "
            "of the last step"
        )
