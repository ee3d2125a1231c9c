"""Which pictures a training step sees: a pure function of (seed, step), so that resuming is starting at the step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import TastemakerError
from ..randomness import stream
from ..ranks import own
from ..records import Prompt
from .epochs import Epochs
from .images import stack

Pair = tuple[Tensor, Prompt]


class Dataset(Protocol):
    """A map-style data set: the same index always gives the same pair."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Pair: ...


class Batches:
    """Endless batches over shuffled epochs (epochs.py): every picture comes once before any comes again. Of several
    processes (ranks.py) each gets its own rows of a batch."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0):
        if batch_size < 1 or not len(dataset):
            raise TastemakerError(f"expected pictures and a batch of at least 1, got {len(dataset)} and {batch_size}")
        self.dataset, self.seed = dataset, seed
        self.epochs = Epochs(len(dataset), batch_size, self._shuffled)

    def at(self, step: int) -> tuple[Tensor, list[Prompt]]:
        """(images (B, 3, S, S), prompts) of one step, counted from 0."""
        return collate([self.dataset[i] for i in self.indices(step)])

    def indices(self, step: int) -> list[int]:
        """The B positions in the data set that this step takes."""
        return own(self.epochs.at(step))

    def _shuffled(self, epoch: int) -> NDArray:
        return stream(self.seed, step=epoch, purpose="epoch").permutation(len(self.dataset))

    def from_step(self, step: int, workers: int = 0) -> Iterator[tuple[Tensor, list[Prompt]]]:
        """`at(step)`, `at(step + 1)`, ... without end, fetched ahead by `workers` processes; 0 reads in this one.

        The same for any number of workers, and the global random state is left alone. A picture that cannot be read
        raises TastemakerError with its name when its step comes.
        """
        loader: DataLoader[Any] = DataLoader(
            _Caught(self.dataset),  # type: ignore[arg-type]
            batch_sampler=_From(self, step),  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate_caught,
            worker_init_fn=_leave_interrupts,
            generator=torch.Generator(),  # else the loader draws its base seed from the global state
        )
        for batch in loader:
            if isinstance(batch, TastemakerError):
                raise batch
            yield batch


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C, and what a scheduler sends to end a job, reach a whole group of processes; the training process alone
    decides what they mean. A worker whose training process is gone ends by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def collate(pairs: Sequence[Pair]) -> tuple[Tensor, list[Prompt]]:
    """Pictures of one size -> ((B, 3, H, W), B prompts)."""
    return stack([image for image, _ in pairs]), [prompt for _, prompt in pairs]


@dataclass(frozen=True)
class _From:
    """A batch sampler that begins at a step and does not end."""

    batches: Batches
    step: int

    def __iter__(self) -> Iterator[list[int]]:
        step = self.step
        while True:
            yield self.batches.indices(step)
            step += 1


@dataclass(frozen=True)
class _Caught:
    """Hands a user's error on as a value: raised inside a worker it would reach people as a traceback."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Pair | TastemakerError:
        try:
            return self.dataset[index]
        except TastemakerError as error:
            return error


def _collate_caught(pairs: list[Any]) -> Any:
    try:
        return next((p for p in pairs if isinstance(p, TastemakerError)), None) or collate(pairs)
    except TastemakerError as error:
        return error
