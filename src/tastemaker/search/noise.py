"""Search for a better starting noise, round after round around the best one: for generators of few steps.

Zero-order search (Ma et al. 2025, arXiv 2501.09732, section 3.2). From a pivot, M neighbours at a distance d are
drawn to the end; the best end's noise is the next pivot. A neighbour is sqrt(1 - d^2) x + d e with fresh normal e, so
that it is normal itself; d = 1 is random search. With a deterministic sampler the picture is a function of its noise,
and a small step in noise is a small one in the picture. Letters: B prompts, M neighbours, N = 1 + rounds M pictures
of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..protocols import Generator, Plan, Reward, State
from ..randomness import mix, noise
from ..records import Ledger, Prompt
from .selected import Look, Selected, gathered, shown
from .walk import Walk, in_batches, walking


@dataclass(frozen=True)
class Config:
    """Zero-order search over the starting noise."""

    n: int = 4
    """M: neighbours of the best noise in each round"""
    rounds: int = 4
    """how often"""
    distance: float = 0.3
    """d: from the best noise to a neighbour, in (0, 1]; 1 is random search"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1 and self.rounds >= 1, "n and rounds of at least 1", f"{self.n} and {self.rounds}")
        expect(0 < self.distance <= 1, "a distance in (0, 1]", self.distance)


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
    """A batch of prompts a turn; candidate 0 is the plain picture. seeds: one per prompt. Raises TastemakerError for
    a generator that does not start from noise."""
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            yield _climbed(walk, own, numbers, config)


def _climbed(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    pivot, paths = walk.start(prompts, seeds, 1)
    if not pivot.x.is_floating_point():
        raise TastemakerError(
            "a masked-token generator starts from masks, so there is no noise to search; use best-of-n, draft or "
            "particles"
        )
    n, first = 1 + config.rounds * config.n, torch.arange(len(prompts))
    ends, places = [walk.ends(pivot, paths)], [first * n]
    best = ends[0][1]
    looks: list[list[Look]] = [[] for _ in range(len(prompts) * n)]
    for k in range(config.rounds):
        state = neighbours(pivot, config.n, config.distance, k)
        numbers = walk.number(len(state))
        images, scores = walk.ends(state, numbers)
        ends.append((images, scores))
        places.append((first[:, None] * n + 1 + k * config.n + torch.arange(config.n)).flatten())
        for place, value, image in zip(places[-1].tolist(), scores.tolist(), images):
            looks[place].append(Look(state.plan.steps, f"round {k + 1}: {value:.2f}", shown(image)))
        pivot, best = climbed(pivot, best, state, scores.reshape(len(prompts), config.n))
    pictures, values = (torch.cat(part) for part in zip(*ends))
    return gathered(len(prompts), n, torch.cat(places), pictures, values, looks)


def neighbours(pivot: State, count: int, distance: float, number: int) -> State:
    """`count` states around each particle, side by side; number: of the round. Their steps draw the noise that the
    pivot's draw."""
    state = pivot[torch.arange(len(pivot)).repeat_interleave(count)]
    branch = torch.tensor([mix(number, k % count) for k in range(len(state))])
    fresh = noise(state.x.shape[1:], state.seeds, branch, state.step, "move").to(state.x)
    return replace(state, x=(1 - distance**2) ** 0.5 * state.x + distance * fresh)


def climbed(pivot: State, best: Tensor, around: State, scores: Tensor) -> tuple[State, Tensor]:
    """The pivot (B,) with the best of its neighbours in its place where one is better, and its score. scores (B, M);
    NaN is never better."""
    top, rows = torch.where(scores.isnan(), -torch.inf, scores).max(1)
    better = ~(top <= best) & top.isfinite()
    chosen = around[torch.arange(len(scores)) * scores.shape[1] + rows]
    shape = (-1, *[1] * (pivot.x.ndim - 1))
    x = torch.where(better.reshape(shape).to(pivot.x.device), chosen.x, pivot.x)
    return replace(pivot, x=x), torch.where(better, top, best)
