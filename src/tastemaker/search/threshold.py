"""Verifier threshold: one path at a time, which goes on only as long as the verifier is content, until one arrives
(Verifier-Threshold, arXiv 2512.08985).

A path is looked at after given shares of its steps. Where its preview is below the threshold it ends, and another
candidate begins; the first end that scores at least `accept` is taken, and nothing more is spent on that prompt.
After N paths the best end is taken; the last one is let through, so that there is one. Easy prompts cost one path and
hard ones N. Thresholds are in the unit of what is asked: `potential` of a verifier that has it, else the score of the
preview. Letters: B prompts, N paths of each at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Generator, Plan, Reward, State
from ..records import Ledger, Prompt
from .halving import rung_steps
from .selected import Look, Selected, gathered, looked
from .walk import Walk, candidates, in_batches, walking


@dataclass(frozen=True)
class Config:
    """Search until the verifier is content."""

    n: int = 20
    """N: paths of each prompt and seed at most"""
    looks: tuple[float, ...] = (0.5, 0.75)
    """after which shares of the steps a path is looked at"""
    least: float = 0.5
    """what a preview must reach"""
    accept: float = 0.0
    """the score of an end that is taken at once"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1, "n of at least 1", self.n)
        expect(all(0 < v < 1 for v in self.looks), "looks in (0, 1)", self.looks)


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
    """A batch of prompts a turn, all at their k-th path together; the ledger grows as it goes. seeds: one per
    prompt."""
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, 1, config.batch_size):
            yield _until_content(walk, own, numbers, config)


def _until_content(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    starts = candidates(walk.generator, prompts, seeds, config.n, walk.plan, walk.guidance)
    looks: list[list[Look]] = [[] for _ in range(len(starts))]
    open_, ends = torch.ones(len(prompts), dtype=torch.bool), []
    for k in range(config.n):
        places = open_.nonzero()[:, 0] * config.n + k
        if not len(places):
            break
        state, paths = starts[places], walk.number(len(places))
        state, paths, places = _watched(walk, state, paths, places, looks, config, last=k + 1 == config.n)
        if len(places):
            images, scores = walk.ends(state, paths)
            ends.append((places, images, scores))
            open_[places[scores >= config.accept] // config.n] = False
    places, images, scores = (torch.cat(part) for part in zip(*ends))
    return gathered(len(prompts), config.n, places, images, scores, looks)


def _watched(
    walk: Walk, state: State, paths: Tensor, places: Tensor, looks: list[list[Look]], config: Config, last: bool
) -> tuple[State, Tensor, Tensor]:
    """The paths that arrive. last: all do."""
    due = [] if last else rung_steps(config.looks, state.plan.steps)
    while len(state) and not state.done.all():
        state = walk.advance(state, paths)
        if int(state.step[0]) not in due:
            continue
        images = walk.look(state, paths)
        values = walk.promise(images, state)
        keep = ~(values < config.least)
        for place, look in zip(places.tolist(), looked(state.step, values, images, ~keep)):
            looks[place].append(look)
        walk.cut(paths[~keep])
        state, paths, places = state[keep], paths[keep], places[keep]
    return state, paths, places
