"""DiffusionNFT: what a picture was worth decides whether the velocity goes towards it or away (Zheng et al. 2025,
arXiv 2509.16117). There is no density and no stochastic sampler: pictures come from any sampler, and the loss is
taken on the forward process.

With the policy v, the old policy v_old that drew the picture x1, and r in [0, 1] what the picture was worth:

    v+ = b v + (1 - b) v_old,      v- = (1 + b) v_old - b v
    L  = A_max / b [ r |x1(v+) - x1|^2 / w+  +  (1 - r) |x1(v-) - x1|^2 / w- ] + kl |v - v_ref|^2

x1(v) = x_t + (1 - t) v, squares are means over the elements, and w is the detached mean of |x1(v) - x1| of that row,
as in the release: the loss is not a square of the error, but near its absolute value. r = 1/2 + A / (2 A_max), A
being the advantage cut at +-A_max. The old policy follows the policy with a growing memory: after a round, v_old <- d
v_old + (1 - d) v with d = min(rise * round, most).

Times and noise are drawn as the generator's own loss draws them (the release takes the sampler's times). Needs of the
generator: a trajectory, `finish`, `draw`, `velocity`, `reference()`. Needs no gradient of the reward. Letters: B rows
of a piece, N pictures of a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Condition, Reward
from ..randomness import mix
from ..ranks import own
from ..records import Prompt, StepRecord
from .anchor import captioned_data
from .groups import (
    GroupConfig,
    condition_of_rows,
    final_pictures,
    follow,
    noised,
    old_policy,
    old_weights,
    remembered,
)
from .kept import Kept, update_in_pieces, with_anchor
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .tuning import TuningConfig

LEAST_WEIGHT = 1e-5  # of w


@dataclass(frozen=True)
class Config(TuningConfig):
    """DiffusionNFT: how far from the old policy, how strongly."""

    beta: float = 1.0
    """b: how much of the policy there is in the mixed velocities; less: a stronger push"""
    most_advantage: float = 5.0
    """A_max, of advantages in standard deviations of their group"""
    kl_weight: float = 1e-4
    """of the squared distance to the base's velocity"""
    old_rise: float = 0.001
    """how much the old policy's memory grows each round"""
    old_most: float = 0.5
    """its largest memory; 0: the old policy is the policy"""
    times: int = 2
    """draws of time and noise for each picture in an update"""
    batch_size: int = 6
    """P: prompts of a round; as many captioned pictures for the pretraining loss"""
    groups: GroupConfig = field(default_factory=GroupConfig)
    """how many pictures a round draws, and how long they are trained on"""
    pretraining_weight: float = 0.0
    """of the loss on captioned pictures; 0 is the published form"""
    seed: int = 0
    """of prompts, pictures and noise"""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=1e-4, warmup_steps=5))

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.beta > 0 and self.most_advantage > 0, "beta and most_advantage above 0", self.beta)
        expect(self.kl_weight >= 0, "a kl_weight of at least 0", self.kl_weight)
        expect(
            self.old_rise >= 0 and 0 <= self.old_most < 1, "old_rise of at least 0, old_most in [0, 1)", self.old_most
        )
        expect(self.times >= 1, "times of at least 1", self.times)


# the objective


def worth(advantage: Tensor, most: float = 5.0) -> Tensor:
    """r = clip(A, -most, most) / most / 2 + 1/2, (B,) in [0, 1]."""
    return advantage.clamp(-most, most) / most / 2 + 0.5


# What the release may make of the advantages before `worth`; its 0 and 1 are divided by A_max all the same.
ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda a: a,
    "positive_only": lambda a: a.clamp_min(0),
    "negative_only": lambda a: a.clamp_max(0),
    "one_only": lambda a: (a > 0).to(a),
    "binary": torch.sign,
}


def towards_and_away(
    v: Tensor, v_old: Tensor, x: Tensor, t: Tensor, x1: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """|x1(v+) - x1|^2 / w+ and |x1(v-) - x1|^2 / w-, each (B,) float64. v, v_old, x, x1 (B, ...), t (B,)."""
    left = (1 - t).reshape(-1, *[1] * (x.ndim - 1))
    return (
        self_weighted(x + left * (beta * v + (1 - beta) * v_old) - x1),
        self_weighted(x + left * ((1 + beta) * v_old - beta * v) - x1),
    )


def self_weighted(error: Tensor) -> Tensor:
    """mean |e|^2 over the detached mean |e|, (B,) float64, which is that of the weight in the release."""
    weight = error.detach().double().abs().flatten(1).mean(1).clamp_min(LEAST_WEIGHT)
    return (error**2).flatten(1).div(weight[:, None]).mean(1)


def objective(
    v: Tensor, v_old: Tensor, v_ref: Tensor, x: Tensor, t: Tensor, x1: Tensor, r: Tensor, config: Config
) -> Tensor:
    """L, (B,). r (B,) as `worth` gives it."""
    towards, away = towards_and_away(v, v_old, x, t, x1, config.beta)
    policy = config.most_advantage / config.beta * (r * towards + (1 - r) * away)
    return policy + config.kl_weight * (v - v_ref).pow(2).flatten(1).mean(1)


# a round and an update


def old_memory(number: int, config: Config) -> float:
    """d before round `number` (from 0)."""
    return min(config.old_rise * number, config.old_most)


@dataclass
class Tally:
    """Sums over the rows of one update."""

    rows: int = 0
    from_old: float = 0.0
    from_base: float = 0.0

    def add(self, v: Tensor, v_old: Tensor, v_ref: Tensor) -> None:
        self.rows += len(v)
        self.from_old += float((v.detach() - v_old).pow(2).flatten(1).mean(1).sum())
        self.from_base += float((v.detach() - v_ref).pow(2).flatten(1).mean(1).sum())

    def figures(self) -> dict[str, float]:
        """Mean squared distances of the velocity, a mean over the elements."""
        return {"from_old": self.from_old / self.rows, "from_base": self.from_base / self.rows}


def losses(
    generator: Any, base: Any, kept: Kept, condition: Condition, config: Config, step: int, tally: Tally
) -> Iterator[Tensor]:
    """The loss of one update, a scalar for each piece; their sum is the mean over pictures and draws."""
    pieces = noised(generator, kept, config.groups.rows_at_once, config.times, mix(config.seed, 3), step)
    r = worth(kept.tensors["advantage"], config.most_advantage)
    with old_policy(generator.network, kept), torch.no_grad():
        olds = [p.velocity_of(generator, condition) for p in pieces]
    total = sum(len(p.rows) for p in pieces)
    for piece, v_old in zip(pieces, olds):
        with torch.no_grad():
            v_ref = piece.velocity_of(base, condition)
        v = piece.velocity_of(generator, condition)
        tally.add(v, v_old, v_ref)
        worthy = r[piece.rows].to(v.device)
        yield objective(v, v_old, v_ref, piece.x, piece.time, piece.x1, worthy, config).sum() / total


def train(
    generator: Any,
    base: Any,
    rewards: Sequence[Reward],
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    kept: Kept,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`, with the round and the old policy in `kept`.

    base: the reference of the KL, `generator.reference()` before any update. Several rewards: each is standardised by
    itself (`advantages.decoupled`). Raises TastemakerError for groups of one.
    """
    generator.network.eval()
    drawn_by = (generator, rewards, prompts, config.batch_size, config.groups, config.seed)
    data, condition = captioned_data(batches, config.pretraining_weight, state.step, config.workers), None
    while state.step < config.steps:
        step, number = state.step, state.step // config.groups.updates
        if kept.number != number:
            kept.tensors = old_weights(kept) or remembered(generator.network)
            follow(kept, generator.network, old_memory(number, config))
            with old_policy(generator.network, kept):
                tensors, figures = final_pictures(*drawn_by, number)
            kept.begin(number, tensors | old_weights(kept), figures)
            condition = None
        if condition is None:
            condition = condition_of_rows(generator, prompts, kept.tensors["prompt"])
        tally = Tally()
        found = losses(generator, base, kept, condition, config, step, tally)
        seeds = own(draw_seeds(mix(config.seed, 2), step, config.batch_size))
        figures = update_in_pieces(state, with_anchor(found, generator, data, config.pretraining_weight, seeds))
        yield StepRecord(state.step, kept.figures | tally.figures() | figures)
