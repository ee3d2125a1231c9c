"""Draft, then render: many candidates in few steps, and the best of them again in all (Flash-BoN, arXiv 2607.04461).

A draft and its rendering start from the same noise, so that a good draft foretells a good picture; how well, the
scores of both in `pictures.jsonl` show. Of masked tokens they share the numbers that draw the first tokens, which
says less. Letters: B prompts, N drafts of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import expect
from ..protocols import Generator, Plan, Reward
from ..records import Ledger, Prompt
from .selected import Look, Selected, gathered, shown
from .walk import Walk, best_rows, candidates, in_batches, thinned, walking


@dataclass(frozen=True)
class Config:
    """Draft, then render."""

    n: int = 16
    """N: drafts of each prompt and seed"""
    draft_steps: int = 4
    """steps of a draft, at times of the full plan"""
    keep: int = 1
    """drafts that are rendered"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(1 <= self.keep <= self.n, "keep from 1 to n", f"{self.keep} of {self.n}")
        expect(self.draft_steps >= 1, "draft_steps of at least 1", self.draft_steps)


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
    """A batch of prompts a turn; the ledger grows as it goes. seeds: one per prompt. Raises TastemakerError for more
    steps than the plan has."""
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            yield _rendered(walk, own, numbers, config)


def _rendered(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    short = thinned(walk.plan, config.draft_steps)
    state, paths = walk.start(prompts, seeds, config.n, short)
    images, values = walk.ends(state, paths)
    words = [f"draft {value:.2f}" for value in values.tolist()]
    places = best_rows(values.reshape(len(prompts), config.n), config.keep).sort().values
    chosen = set(places.tolist())
    looks = [[Look(short.steps, words[k], shown(images[k]), k not in chosen)] for k in range(len(words))]
    full = candidates(walk.generator, prompts, seeds, config.n, walk.plan, walk.guidance)[places]
    again = walk.number(len(places))
    return gathered(len(prompts), config.n, places, *walk.ends(full, again), looks)
