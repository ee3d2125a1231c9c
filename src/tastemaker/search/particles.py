"""Weights of particles that are steered by a reward (Feynman-Kac steering, Singhal et al. 2025, arXiv 2501.06848).

A population of K particles of one prompt draws a picture. Now and then each one's preview is judged, and a potential
turns the rewards r so far into a weight exp(lambda value); particles are then drawn again by their weights. Over a
line the potentials multiply to exp(lambda r) of its end: for `difference` they telescope by themselves, and for the
others the last weight divides by what went before. Everything is in logarithms. A reward of NaN weighs nothing.

| potential | value | carried on |
|---|---|---|
| `difference` | r - carried | r |
| `maximum` | max(r, carried) | the same |
| `total` | r + carried | the same |
| `latest` | r | r |

Letters: K particles of a prompt, the last axis of every tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName, expect
from ..protocols import Generator, Plan, Reward, State
from ..randomness import stream
from ..records import Ledger, Prompt
from .selected import Look, Selected, gathered, looked
from .walk import Walk, in_batches, redrawn, walking

Potential = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (rewards, carried) -> (value, carried on), (..., K)


def difference(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The gain since the last look."""
    return reward - carried, reward


def maximum(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The best so far."""
    best = torch.maximum(reward, carried)
    return best, best


def total(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of all looks."""
    return reward + carried, reward + carried


def latest(reward: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """This look alone."""
    return reward, reward


POTENTIALS: dict[str, Potential] = {f.__name__: f for f in (difference, maximum, total, latest)}


@dataclass(frozen=True)
class Lineage:
    """What the line of each particle has gone through."""

    carried: Tensor  # (..., K)
    log_product: Tensor  # (..., K) of the weights by which its ancestors were drawn

    @classmethod
    def begin(cls, rewards: Tensor, carried: float = 0.0) -> Lineage:
        """For rewards of this shape. carried: what a line starts with, a reward that none is expected to be below."""
        return cls(torch.full_like(rewards, carried), torch.zeros_like(rewards))

    def drawn(self, rows: Tensor, log_weight: Tensor) -> Lineage:
        """After a draw: rows (..., K) int64, by log_weight (..., K)."""
        return Lineage(self.carried.gather(-1, rows), (self.log_product + log_weight).gather(-1, rows))


def weigh(
    reward: Tensor, lineage: Lineage, potential: Potential, strength: float, last: bool = False
) -> tuple[Tensor, Lineage]:
    """log weights (..., K), and the lineage with what is carried on. strength: lambda. last: at the end of the
    way."""
    known = ~reward.isnan()
    value, carried = potential(torch.where(known, reward, lineage.carried), lineage.carried)
    log_weight = strength * value
    if last and potential is not difference:
        log_weight = log_weight - lineage.log_product
    carried = torch.where(known, carried, lineage.carried)
    return torch.where(known, log_weight, -torch.inf), replace(lineage, carried=carried)


def effective_size(log_weight: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, (..., K) -> (...): K where all weigh the same, 1 where one does; NaN where none weighs."""
    return (-(2 * log_weight.log_softmax(-1)).logsumexp(-1)).exp()


def due(log_weight: Tensor, share: float = 0.5) -> Tensor:
    """Whether to draw again, (...) bool: fewer than `share` of the particles count."""
    return effective_size(log_weight) < share * log_weight.shape[-1]


def systematic(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Rows (..., K) int64 by systematic resampling: a particle of weight w is taken floor(K w) or ceil(K w) times,
    with much less chance in it than K single draws. uniform (...) in [0, 1)."""
    count = log_weight.shape[-1]
    ladder = log_weight.double().softmax(-1).cumsum(-1)
    marks = (torch.arange(count, device=log_weight.device) + uniform[..., None].double()) / count
    return torch.searchsorted(ladder.contiguous(), marks.contiguous(), right=True).clamp_max(count - 1)


@dataclass(frozen=True)
class Config:
    """Particles steered by a reward."""

    n: int = 4
    """K: particles of each prompt and seed"""
    strength: float = 10.0
    """lambda: how much a point of the reward counts in the weights"""
    potential: str = "difference"
    """what makes a weight of the rewards so far: difference, maximum, total or latest"""
    every: int = 2
    """steps between two looks"""
    first: float = 0.2
    """share of the steps before which nobody looks"""
    last: float = 0.9
    """share of the steps after which nobody looks, but for the end"""
    least_share: float = 0.5
    """particles are drawn again where fewer than this share of them count; 1: at every look"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1 and self.every >= 1, "n and every of at least 1", f"{self.n} and {self.every}")
        expect(self.strength > 0, "a strength above 0", self.strength)
        if self.potential not in POTENTIALS:
            raise UnknownName("potential", self.potential, POTENTIALS)
        expect(0 <= self.first <= self.last <= 1, "first <= last, in [0, 1]", f"{self.first} and {self.last}")
        expect(0 < self.least_share <= 1, "least_share in (0, 1]", self.least_share)


def search(
    generator: Generator,
    verifier: Reward,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    config: Config,
    ledger: Ledger,
    plan: Plan | None = None,
    guidance: float | None = None,
) -> Iterator[Selected]:
    """A batch of prompts a turn; the ledger grows as it goes. seeds: one per prompt. The reward is the verifier's
    score of the preview, and the best end is kept. Raises TastemakerError where particles drawn twice stay alike, as
    those of a deterministic sampler do."""
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            yield _steered(walk, own, numbers, config)


def _steered(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    state, paths = walk.start(prompts, seeds, config.n)
    cloud = Cloud(len(prompts), config)
    while not state.done.all():
        state = walk.advance(state, paths)
        cloud.require_parted(state)
        if not state.done.all() and cloud.looks_at(state):
            images = walk.look(state, paths)
            rows = cloud.draw(walk.score(images, state.condition.prompts), state, images)
            walk.keep_only(paths, rows)
            state, paths = redrawn(state, rows), _renumbered(walk, paths, rows)
    return gathered(len(prompts), config.n, torch.arange(len(state)), *walk.ends(state, paths), cloud.said)


def _renumbered(walk: Walk, paths: Tensor, rows: Tensor) -> Tensor:
    """The first copy of a path keeps its number, others get new ones."""
    again = torch.tensor([row in rows[:k] for k, row in enumerate(rows)])
    numbers = paths[rows].clone()
    numbers[again] = walk.number(int(again.sum()))
    return numbers


class Cloud:
    """The weights and lines of a batch of prompts' particles, and what was said of each."""

    def __init__(self, prompts: int, config: Config):
        self.config, shape = config, (prompts, config.n)
        self.lineage = Lineage.begin(torch.zeros(shape))
        self.pending = torch.zeros(shape)  # log weights since the last draw
        self.said: list[list[Look]] = [[] for _ in range(prompts * config.n)]
        self.twice: tuple[int, int] | None = None  # two rows that were one particle a step ago

    def looks_at(self, state: State) -> bool:
        step, steps = int(state.step[0]), state.plan.steps
        return step % self.config.every == 0 and self.config.first * steps <= step <= self.config.last * steps

    def draw(self, rewards: Tensor, state: State, images: Tensor) -> Tensor:
        """Rows (B K,) of the particles that go on, those of a prompt in its own places."""
        scores, config = rewards.reshape(self.pending.shape), self.config
        gained, lineage = weigh(scores, self.lineage, POTENTIALS[config.potential], config.strength)
        silent = scores.isnan().all(1, keepdim=True)  # nothing is known of the prompt: nothing changes
        weights = torch.where(silent, self.pending, self.pending + gained)
        again = due(weights, config.least_share) | (config.least_share == 1)
        again &= ~silent[:, 0]
        numbers = [stream(int(s), int(b), int(k), "resample").random() for s, b, k in self._firsts(state)]
        own = torch.arange(config.n).expand_as(weights)
        rows = torch.where(again[:, None], systematic(weights.nan_to_num(neginf=-1e30), torch.tensor(numbers)), own)
        drawn = lineage.drawn(rows, weights)
        self.lineage = Lineage(drawn.carried, torch.where(again[:, None], drawn.log_product, lineage.log_product))
        self.pending = torch.where(again[:, None], 0.0, weights)
        flat = (rows + torch.arange(len(rows))[:, None] * config.n).flatten()
        self._note(rewards, state, images, flat)
        return flat

    def _firsts(self, state: State) -> Iterator[tuple[int, int, int]]:
        rows = slice(None, None, self.config.n)
        return zip(state.seeds[rows].tolist(), state.branch[rows].tolist(), state.step[rows].tolist())

    def _note(self, rewards: Tensor, state: State, images: Tensor, rows: Tensor) -> None:
        taken, lost = rows.tolist(), ~torch.isin(torch.arange(len(state)), rows)
        lines = [[*before, look] for before, look in zip(self.said, looked(state.step, rewards, images, lost))]
        self.said = [lines[row] for row in taken]
        self.twice = next(((taken.index(row), k) for k, row in enumerate(taken) if row in taken[:k]), None)

    def require_parted(self, state: State) -> None:
        """Raise TastemakerError where two copies of one particle took the same step."""
        if self.twice and state.x.is_floating_point() and torch.equal(*(state.x[k] for k in self.twice)):
            raise TastemakerError(
                "particles that were drawn twice stay alike: a deterministic sampler cannot be steered. Sample with "
                "`sde`, or with `ddim` and eta above 0"
            )
        self.twice = None
