"""Which pairs a training step of a reward model sees: a pure function of (seed, step), each picture read once a step.

Letters: B pairs, U pictures of a batch, S their side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import TastemakerError
from ..randomness import stream
from ..records import Prompt
from .epochs import Epochs
from .pairs import Pair, prompt_key

Picture = Path | str
Order = Callable[[Sequence[Pair], int, int], NDArray]  # (pairs, seed, epoch) -> a permutation of their positions


@dataclass(frozen=True)
class PairBatch:
    """B pairs over U pictures; a picture that several pairs of a prompt share is there once."""

    pictures: Tensor  # (U, 3, S, S) in [0, 1]; or (U, D), what a frozen encoder made of them
    prompts: tuple[Prompt, ...]  # U
    a: Tensor  # (B,) int64, row of `pictures`
    b: Tensor  # (B,)
    preference: Tensor  # (B,) 1 where a is better, 0 where b is, 0.5 for a tie
    weight: Tensor  # (B,)
    prompt_keys: tuple[str, ...]  # B, equal where two pairs share a prompt

    def __len__(self) -> int:
        return len(self.a)


def shuffled_pairs(pairs: Sequence[Pair], seed: int, epoch: int) -> NDArray:
    """Every pair for itself, as in ImageReward's released script."""
    return stream(seed, step=epoch, purpose="pairs").permutation(len(pairs))


def shuffled_prompts(pairs: Sequence[Pair], seed: int, epoch: int) -> NDArray:
    """Prompts in a new order, the pairs of each side by side: a picture is then read once for all its pairs."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, pair in enumerate(pairs):
        groups[prompt_key(pair)].append(position)
    rng, listed = stream(seed, step=epoch, purpose="prompts of pairs"), list(groups.values())
    return np.concatenate([rng.permutation(listed[i]) for i in rng.permutation(len(listed))])


class PairBatches:
    """Endless batches over shuffled epochs: every pair comes once before any comes again.

    pictures: gives a picture by the name that the pairs use. order: `shuffled_prompts` or `shuffled_pairs`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        pictures: Callable[[Picture], Tensor],
        batch_size: int,
        seed: int = 0,
        order: Order = shuffled_prompts,
    ):
        if batch_size < 1 or not pairs:
            raise TastemakerError(f"expected pairs and a batch of at least 1, got {len(pairs)} and {batch_size}")
        self.pairs, self.pictures, self.batch_size, self.seed, self.order = pairs, pictures, batch_size, seed, order
        self.epochs = Epochs(len(pairs), batch_size, self._shuffled)

    def at(self, step: int) -> PairBatch:
        """The batch of one step, counted from 0."""
        return batch_of([self.pairs[row] for row in self.epochs.at(step)], self.pictures)

    def _shuffled(self, epoch: int) -> NDArray:
        return self.order(self.pairs, self.seed, epoch)

    def from_step(self, step: int) -> Iterator[PairBatch]:
        """`at(step)`, `at(step + 1)`, ... without end."""
        while True:
            yield self.at(step)
            step += 1

    def once(self) -> Iterator[PairBatch]:
        """Every pair once, in the order given: for validation."""
        for i in range(0, len(self.pairs), self.batch_size):
            yield batch_of(self.pairs[i : i + self.batch_size], self.pictures)


def batch_of(pairs: Sequence[Pair], pictures: Callable[[Picture], Tensor]) -> PairBatch:
    """A picture that two prompts share is there twice, once with each."""
    rows: dict[tuple[Picture, str], tuple[int, Prompt]] = {}
    places = [_places(rows, [(pair.image_a, pair.prompt), (pair.image_b, pair.prompt)]) for pair in pairs]
    a, b = torch.tensor(places, dtype=torch.int64).reshape(len(pairs), 2).T
    return PairBatch(
        torch.stack([pictures(name) for name, _ in rows]),
        tuple(prompt for _, prompt in rows.values()),
        a,
        b,
        torch.tensor([pair.preference for pair in pairs]),
        torch.tensor([pair.weight for pair in pairs]),
        tuple(prompt_key(pair) for pair in pairs),
    )


def _places(
    rows: dict[tuple[Picture, str], tuple[int, Prompt]], wanted: Sequence[tuple[Picture, Prompt]]
) -> list[int]:
    return [rows.setdefault((name, prompt.text), (len(rows), prompt))[0] for name, prompt in wanted]
