"""Step by step with a process reward model: after every step N candidates, the best goes on and branches anew (Guo et
al. 2025, arXiv 2501.13926, section 3.2; labels as in Math-Shepherd, arXiv 2312.08935).

The paper gains nothing by it: early previews are too blurred to judge, and late ones too much alike to choose from. A
beam above 1 keeps more than one line, which is ours. Asked is `potential` of a verifier that has it, else the score
of the preview. Letters: B prompts, N candidates of each, b beam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..protocols import Generator, Plan, Reward, State
from ..records import Ledger, Prompt
from .selected import Look, Selected, gathered, looked
from .walk import Walk, best_rows, in_batches, redrawn, walking


@dataclass(frozen=True)
class Config:
    """Step-wise search by a process reward model."""

    n: int = 8
    """N: candidates of each prompt and seed at every look"""
    beam: int = 1
    """how many of them go on; 1 is the published form"""
    every: int = 1
    """steps between two looks"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1 and self.every >= 1, "n and every of at least 1", f"{self.n} and {self.every}")
        expect(1 <= self.beam <= self.n and self.n % self.beam == 0, "a beam that divides n", self.beam)


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
    """A batch of prompts a turn; the ledger grows as it goes. seeds: one per prompt. Raises TastemakerError where
    the branches of a path stay alike, as those of a deterministic sampler do."""
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            yield _line(walk, own, numbers, config)


def _line(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    state, paths = walk.start(prompts, seeds, config.n)
    looks: list[list[Look]] = [[] for _ in range(len(state))]
    while True:
        for _ in range(config.every):
            if not state.done.all():
                state = walk.advance(state, paths)
        if state.done.all():
            break
        state, paths, looks = _kept(walk, state, paths, looks, config)
    return gathered(len(prompts), config.n, torch.arange(len(state)), *walk.ends(state, paths), looks)


def _kept(
    walk: Walk, state: State, paths: Tensor, looks: list[list[Look]], config: Config
) -> tuple[State, Tensor, list[list[Look]]]:
    """The best of each prompt, each branched into N / b; the others are cut off."""
    require_apart(state, config.n)
    images = walk.look(state, paths)
    values = walk.promise(images, state)
    rows = best_rows(values.unflatten(0, (-1, config.n)), config.beam)
    said = looked(state.step, values, images, torch.zeros(len(state), dtype=torch.bool))
    walk.keep_only(paths, rows)
    times = config.n // config.beam
    fresh = walk.number(len(rows) * (times - 1)).reshape(len(rows), times - 1)
    numbers = torch.cat([paths[rows, None], fresh], 1).flatten()
    children = rows.repeat_interleave(times)
    return redrawn(state, children), numbers, [[*looks[r], said[r]] for r in children.tolist()]


def require_apart(state: State, n: int) -> None:
    """Raise TastemakerError where the N candidates of every prompt are one and the same."""
    x = state.x.unflatten(0, (-1, n))
    if n > 1 and x.is_floating_point() and (x[:, :1] == x[:, 1:]).all():
        raise TastemakerError(
            f"all {n} candidates are the same: branches of a deterministic sampler do not part. Sample with `sde`, "
            "or with `ddim` and eta above 0"
        )
