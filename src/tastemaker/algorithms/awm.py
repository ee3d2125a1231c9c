"""Advantage-weighted matching: the policy gradient with the matching loss in place of a log-density (Xue et al. 2025,
arXiv 2509.25050). Pictures come from any sampler and are noised again; the surrogate log-density of a picture is

    log p = -w(t) |v(x_t, t) - (x1 - x0)|^2,     the square a mean over the elements,

and the objective is PPO's with the advantage A of the picture over its group, and a squared distance to the base:

    L = max(-A rho, -A clip(rho, 1 - c, 1 + c)) + kl |v - v_ref|^2,     rho = exp(log p - log p_old)

The old policy sees the same times, noise and rows as the new one: at the first step of a round rho is 1, exactly. The
release's other forms stand beside this one as functions: `WEIGHTINGS` of the log-density, `over_times` (one ratio per
picture), `elbo_weight` of the KL. Times and noise are drawn as the generator's own loss draws them. Needs of the
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
from .advantages import surrogate
from .anchor import captioned_data
from .groups import GroupConfig, condition_of_rows, final_pictures, noised, old_policy, remembered
from .kept import Kept, update_in_pieces, with_anchor
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .tuning import TuningConfig

SMALL = 1e-10  # under the root of `huber`


def generalised_huber(square: Tensor, noise: Tensor, power: float = 0.25) -> Tensor:
    """((e^2 + small)^p - small^p) t / p, (B,)."""
    return ((square + SMALL) ** power - SMALL**power) * noise / power


# name -> (mean square (B,), noise level 1 - t (B,)) -> what stands for -log p, (B,)
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": lambda square, noise: square,
    "noise": lambda square, noise: square * noise,
    "noise-squared": lambda square, noise: square * noise**2,
    "huber": lambda square, noise: ((square + SMALL).sqrt() - SMALL**0.5) * noise,
    "generalised-huber": generalised_huber,
}


@dataclass(frozen=True)
class Config(TuningConfig):
    """AWM: how the surrogate is weighted, how far a step may go, how strongly it is held."""

    weighting: str = "uniform"
    """of the surrogate log-density: uniform, noise, noise-squared, huber or generalised-huber"""
    clip: float = 0.2
    """c: how far a ratio may leave 1"""
    kl_weight: float = 0.04
    """of the squared distance to the base's velocity"""
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
        expect(self.weighting in WEIGHTINGS, f"a weighting among {', '.join(WEIGHTINGS)}", self.weighting)
        expect(self.clip > 0 and self.kl_weight >= 0, "clip above 0, kl_weight of at least 0", self.clip)
        expect(self.times >= 1, "times of at least 1", self.times)


# the objective


def log_density(v: Tensor, x1: Tensor, x0: Tensor, t: Tensor, weighting: str = "uniform") -> Tensor:
    """The surrogate, (B,) float64. v, x1, x0 (B, ...), t (B,) in our time."""
    square = (v.double() - (x1 - x0).double()).pow(2).flatten(1).mean(1)
    return -WEIGHTINGS[weighting](square, 1 - t.double())


def velocity_distance(v: Tensor, other: Tensor) -> Tensor:
    """mean (v - other)^2, (B,)."""
    return (v - other).pow(2).flatten(1).mean(1)


def over_times(log_density: Tensor, count: int) -> Tensor:
    """(n count,), rows of one time together -> (count,): the mean over the n times, for one ratio per picture."""
    return log_density.reshape(-1, count).mean(0)


def elbo_weight(t: Tensor, level: float = 0.7, most: float = 0.99) -> Tensor:
    """1 / (2 g^2), (B,): the other weight of the distances, g = level sqrt(s / (1 - s)) at the noise level s = 1 - t;
    the denominator's s is at most `most`."""
    noise = 1 - t
    return (1 - noise.clamp_max(most)) / (2 * level**2 * noise)


# an update


@dataclass
class Tally:
    """Sums over the rows of one update."""

    rows: int = 0
    ratio: float = 0.0
    clipped: float = 0.0
    from_base: float = 0.0

    def add(self, log_ratio: Tensor, distance: Tensor, clip: float) -> None:
        ratio = log_ratio.detach().exp()
        self.rows += len(ratio)
        self.ratio += float(ratio.sum())
        self.clipped += float(((ratio - 1).abs() > clip).sum())
        self.from_base += float(distance.detach().sum())

    def figures(self) -> dict[str, float]:
        """Mean ratio, share of ratios beyond the clip, mean squared distance to the base."""
        names = ("ratio", "clipped", "from_base")
        return {name: getattr(self, name) / self.rows for name in names}


def losses(
    generator: Any, base: Any, kept: Kept, condition: Condition, config: Config, step: int, tally: Tally
) -> Iterator[Tensor]:
    """The loss of one update, a scalar for each piece; their sum is the mean over pictures and draws."""
    pieces = noised(generator, kept, config.groups.rows_at_once, config.times, mix(config.seed, 3), step)
    total, olds = sum(len(p.rows) for p in pieces), []
    if step % config.groups.updates:  # else the policy is the old one
        with old_policy(generator.network, kept), torch.no_grad():
            olds = [p.velocity_of(generator, condition) for p in pieces]
    for i, piece in enumerate(pieces):
        with torch.no_grad():
            v_ref = piece.velocity_of(base, condition)
        v = piece.velocity_of(generator, condition)
        known = (piece.x1, piece.x0, piece.time, config.weighting)
        log_ratio = log_density(v, *known) - log_density(olds[i] if olds else v.detach(), *known)  # (B,)
        distance = velocity_distance(v, v_ref)
        tally.add(log_ratio, distance, config.clip)
        advantage = kept.tensors["advantage"][piece.rows].to(v.device)
        yield (surrogate(log_ratio, advantage, config.clip) + config.kl_weight * distance).sum() / total


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
    """One optimiser step a turn; goes on from `state.step`, with the round in `kept` where it is not over.

    base: the reference of the KL, `generator.reference()` before any update. Several rewards: each is standardised by
    itself (`advantages.decoupled`). Raises TastemakerError for groups of one.
    """
    generator.network.eval()
    drawn_by = (generator, rewards, prompts, config.batch_size, config.groups, config.seed)
    data, condition = captioned_data(batches, config.pretraining_weight, state.step, config.workers), None
    while state.step < config.steps:
        step, number = state.step, state.step // config.groups.updates
        if kept.number != number:
            tensors, figures = final_pictures(*drawn_by, number)
            kept.begin(number, tensors | remembered(generator.network), figures)
            condition = None
        if condition is None:
            condition = condition_of_rows(generator, prompts, kept.tensors["prompt"])
        tally = Tally()
        found = losses(generator, base, kept, condition, config, step, tally)
        seeds = own(draw_seeds(mix(config.seed, 2), step, config.batch_size))
        figures = update_in_pieces(state, with_anchor(found, generator, data, config.pretraining_weight, seeds))
        yield StepRecord(state.step, kept.figures | tally.figures() | figures)
