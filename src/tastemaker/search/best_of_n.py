"""Best-of-N: N pictures for each prompt, the verifier's favourite kept (Nakano et al. 2021, arXiv 2112.09332).

Candidate 0 of a seed is the picture that plain sampling gives, the others are branches of the same seed; N = 1 is
plain sampling. A candidate whose score is NaN cannot win. With an outcome reward model (ORM) as verifier it is the
first method of "Can we generate images with CoT?" (Guo et al. 2025, arXiv 2501.13926, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Generator, Plan, Reward
from ..records import Ledger, Prompt
from .selected import Selected, gathered
from .selected import choose as choose
from .walk import Walk, in_batches, walking
from .walk import candidates as candidates


@dataclass(frozen=True)
class Config:
    """Best-of-N."""

    n: int = 8
    """candidates for each prompt and seed"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1, "n >= 1 and a seed per prompt", f"n = {self.n}")


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
            yield best(walk, own, numbers, config.n)


def best(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, n: int) -> Selected:
    """N whole paths of each prompt and the best of their ends."""
    state, paths = walk.start(prompts, seeds, n)
    return gathered(len(prompts), n, torch.arange(len(state)), *walk.ends(state, paths))
