"""Rounds of pictures in groups, several of each prompt, for the methods that compare a picture with its siblings; and
the weights of the policy that drew them. Letters: P prompts of a round, K pictures of each, N = P K, R rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TastemakerError, expect
from ..protocols import Condition, Reward
from ..randomness import mix, stream
from ..ranks import gather, local, own, rank
from ..records import Prompt
from ..sampling import finish, score_batch
from .advantages import decoupled, mean_free, require_groups, standardised
from .kept import Kept
from .optimise import trainable
from .pretrain import draw_seeds

OneReward = Callable[[Tensor, Tensor], Tensor]  # scores (N,), groups (N,) -> advantages (N,)
OLD = "old."  # before the names of the old policy's weights among what a round keeps


@dataclass(frozen=True)
class GroupConfig:
    """How many pictures a round draws, and how long they are trained on."""

    per_prompt: int = 8
    """K: pictures of each prompt, at least 2; batch_size prompts make a round"""
    updates: int = 2
    """optimiser steps on each round's pictures"""
    guidance: float = 1.0
    """of the round's pictures; 1: none"""
    reward_weights: tuple[float, ...] = ()
    """of several rewards, in their order; empty: all count alike"""
    rows_at_once: int = 64
    """states that one evaluation of the network sees; less: less memory"""

    def __post_init__(self) -> None:
        expect(
            self.per_prompt >= 2,
            "groups.per_prompt of at least 2, since a group of one has no advantage",
            self.per_prompt,
        )
        expect(
            self.updates >= 1 and self.rows_at_once >= 1,
            "groups.updates and groups.rows_at_once of at least 1",
            f"{self.updates}, {self.rows_at_once}",
        )


@dataclass(frozen=True)
class Asked:
    """What a round draws: prompts in groups side by side, with their seeds and group ids, each (N,)."""

    rows: Tensor  # into the training prompts
    seeds: Tensor
    groups: Tensor


def asked(prompts: Sequence[Prompt], count: int, per_prompt: int, seed: int, number: int) -> Asked:
    """Round `number`: `count` prompts, drawn evenly with replacement, `per_prompt` times each."""
    if not prompts:
        raise TastemakerError("no prompts to train on; expected at least one")
    chosen = stream(seed, step=number, purpose="prompts").integers(len(prompts), size=count)
    groups = torch.arange(count).repeat_interleave(per_prompt)
    return Asked(torch.from_numpy(chosen)[groups], draw_seeds(mix(seed, 1), number, len(groups)), groups)


def condition_of_rows(generator: Any, prompts: Sequence[Prompt], rows: Tensor, guidance: float = 1.0) -> Condition:
    """Prepared, (N,)."""
    return generator.prepare(Condition.of([prompts[i] for i in rows.tolist()], guidance))


def judged(rewards: Sequence[Reward], images: Tensor, condition: Condition) -> Tensor:
    """(N, R) float32 without gradient, of pictures clamped to [0, 1] as they would be saved."""
    return score_batch(rewards, images.clamp(0, 1), condition.prompts)


def reward_weights(config: GroupConfig, rewards: Sequence[Reward]) -> tuple[float, ...]:
    """(R,). Raises TastemakerError where they are not one per reward."""
    weights = config.reward_weights or (1.0,) * len(rewards)
    expect(len(weights) == len(rewards), f"{len(rewards)} groups.reward_weights, one per reward", len(weights))
    return weights


def advantages_of(
    scores: Tensor, groups: Tensor, rewards: Sequence[Reward], config: GroupConfig, one: OneReward = mean_free
) -> tuple[Tensor, dict[str, float]]:
    """(N, R) -> (N,): of a single reward what `one` makes of it, of several `decoupled`; and figures.

    Raises TastemakerError for a group of one, for weights that are not one per reward, and where a reward gave no
    score at all.
    """
    require_groups(groups)
    for reward, column in zip(rewards, scores.T):
        if column.isnan().all():
            raise TastemakerError(
                f"'{reward.name}' gave no score for any of {len(scores)} pictures: nothing to compare"
            )
    weights = reward_weights(config, rewards)
    found = one(weights[0] * scores[:, 0], groups) if len(rewards) == 1 else decoupled(scores, groups, weights)
    named = {f"reward/{r.name}": float(c.nanmean()) for r, c in zip(rewards, scores.T)} if len(rewards) > 1 else {}
    total = float((scores.nanmean(0) * torch.tensor(weights)).sum())
    return found, {"reward": total, **named, "no_score": int(scores.isnan().any(1).sum())}


def final_pictures(
    generator: Any,
    rewards: Sequence[Reward],
    prompts: Sequence[Prompt],
    count: int,
    config: GroupConfig,
    seed: int,
    number: int,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Round `number` by the generator's own sampler, for methods that noise again: x1 (N, ...), prompt (N,) and
    standardised advantage (N,); and figures. count: P. Of several processes each draws and keeps N / W of them."""
    ask, x1, scores = asked(prompts, count, config.per_prompt, seed, number), [], []
    for rows in own(torch.arange(len(ask.rows))).split(config.rows_at_once):
        condition = condition_of_rows(generator, prompts, ask.rows[rows], config.guidance)
        state = finish(generator, generator.start(condition, ask.seeds[rows]))
        scores.append(judged(rewards, generator.preview(state), condition))
        x1.append(generator.finish(state.x, state.x.new_full((len(rows),), state.plan.times[-1])).cpu())
    advantage, figures = advantages_of(gather(torch.cat(scores)), ask.groups, rewards, config, standardised)
    return {"x1": torch.cat(x1), "prompt": own(ask.rows), "advantage": own(advantage)}, figures


@dataclass(frozen=True)
class Noised:
    """Some of a round's pictures, noised again: x = t x1 + (1 - t) x0. rows (B,) into the round."""

    rows: Tensor
    x1: Tensor
    x0: Tensor
    time: Tensor

    @property
    def x(self) -> Tensor:
        t = self.time.reshape(-1, *[1] * (self.x1.ndim - 1))
        return t * self.x1 + (1 - t) * self.x0

    def velocity_of(self, generator: Any, condition: Condition) -> Tensor:
        """(B, ...), not guided; condition: of the whole round."""
        return generator.velocity(self.x, self.time, condition[self.rows])


def noised(generator: Any, kept: Kept, rows_at_once: int, draws: int, seed: int, step: int) -> list[Noised]:
    """Every picture of the round `draws` times, in pieces, each with a time and noise of its own for this step."""
    device, count = next(generator.network.parameters()).device, len(kept.tensors["x1"])
    found = []
    for draw in range(draws):
        for rows in torch.arange(count).split(rows_at_once):
            x1 = kept.tensors["x1"][rows].to(device)
            seeds = torch.tensor([mix(seed, step, draw, rank() * count + k) for k in rows.tolist()])
            drawn = generator.draw(x1, seeds)
            found.append(Noised(rows, x1, drawn.noise, drawn.time))
    return found


def remembered(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the trainable weights, of sharded ones of the parts here, named for `Kept.tensors`."""
    return {OLD + name: local(p.detach()).clone() for name, p in trainable(network).items()}


def follow(kept: Kept, network: nn.Module, decay: float) -> None:
    """The old policy becomes decay old + (1 - decay) current."""
    for name, p in trainable(network).items():
        old = kept.tensors[OLD + name]
        kept.tensors[OLD + name] = old.to(p.device).lerp(local(p.detach()), 1 - decay)


def old_weights(kept: Kept) -> dict[str, Tensor]:
    return {name: value for name, value in kept.tensors.items() if name.startswith(OLD)}


@contextmanager
def old_policy(network: nn.Module, kept: Kept) -> Iterator[None]:
    """The old weights are in the network inside, and its own again on leaving."""
    weights = trainable(network)
    current = {name: local(p.detach()).clone() for name, p in weights.items()}
    _fill(weights, {name: kept.tensors[OLD + name] for name in weights})
    try:
        yield
    finally:
        _fill(weights, current)


@torch.no_grad()
def _fill(weights: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, p in weights.items():
        local(p).copy_(values[name])
