"""Successive halving: many paths begin, and at every rung the worse part of them ends (Karnin et al. 2013, ICML,
Algorithm 1, with paths for arms).

N paths cost about as much as a few whole ones, O(N + T) where best-of-N costs O(N T); the hierarchical search of
dMLLM-TTS (arXiv 2512.19433) is of this kind. A path that is cut off has no end. Asked is `potential` of a verifier
that has it, else the score of the preview; early previews mislead, so the first rung should not be early (`search
calibrate` says from when on they foretell). Letters: B prompts, N paths of each at first, M under way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Generator, Plan, Reward, State
from ..records import Ledger, Prompt
from .selected import Look, Selected, gathered, looked
from .walk import Walk, best_rows, in_batches, walking


@dataclass(frozen=True)
class Config:
    """Successive halving."""

    n: int = 16
    """N: paths of each prompt and seed at first"""
    keep: float = 0.5
    """share of them that passes a rung, rounded up, in (0, 1)"""
    rungs: tuple[float, ...] = (0.4, 0.6, 0.8)
    """after which shares of the steps, rising, in (0, 1)"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1 and 0 < self.keep < 1, "n of at least 1 and keep in (0, 1)", f"{self.n} and {self.keep}")
        rising = sorted(set(self.rungs)) == list(self.rungs) and all(0 < r < 1 for r in self.rungs)
        expect(rising and len(self.rungs) > 0, "rungs that rise, in (0, 1)", self.rungs)


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
    """A batch of prompts a turn; the ledger grows as it goes. seeds: one per prompt."""
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            yield _halved(walk, own, numbers, config)


def rung_steps(rungs: Sequence[float], steps: int) -> list[int]:
    """After which steps the rungs stand: from 1 to one before the last, each once."""
    return sorted({min(max(round(r * steps), 1), steps - 1) for r in rungs} - {0})


def _halved(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    state, paths = walk.start(prompts, seeds, config.n)
    places, looks = torch.arange(len(state)), [[] for _ in range(len(state))]  # type: ignore[var-annotated]
    rungs = rung_steps(config.rungs, state.plan.steps)
    while not state.done.all():
        state = walk.advance(state, paths)
        if int(state.step[0]) in rungs and len(state) > len(prompts):
            rows = _passing(walk, state, paths, places, looks, config.keep, len(prompts))
            state, paths, places = state[rows], paths[rows], places[rows]
    return gathered(len(prompts), config.n, places, *walk.ends(state, paths), looks)


def _passing(
    walk: Walk, state: State, paths: Tensor, places: Tensor, looks: list[list[Look]], share: float, prompts: int
) -> Tensor:
    """Rows of those that go on, as many of each prompt; the others are cut off."""
    images = walk.look(state, paths)
    values = walk.promise(images, state)
    count = len(state) // prompts
    rows = best_rows(values.unflatten(0, (prompts, count)), max(1, math.ceil(share * count))).sort().values
    lost = ~torch.isin(torch.arange(len(state)), rows)
    for place, look in zip(places.tolist(), looked(state.step, values, images, lost)):
        looks[place].append(look)
    walk.cut(paths[lost])
    return rows
