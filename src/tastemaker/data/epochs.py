"""Which rows a training step sees: shuffled epochs without end, so that resuming is starting at the step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError


class Epochs:
    """Every row comes once before any comes again. order: epoch -> a permutation of the rows' positions.

    A batch may reach over the end of an epoch, and over several where there are fewer rows than it takes.
    """

    def __init__(self, rows: int, batch_size: int, order: Callable[[int], NDArray]):
        self.rows, self.batch_size, self.order = rows, batch_size, order
        self._latest: tuple[int, NDArray] = (-1, np.empty(0, np.int64))  # an epoch and its permutation

    def at(self, step: int) -> list[int]:
        """The B positions that a step, counted from 0, takes. Raises TastemakerError for a step below 0."""
        if step < 0:
            raise TastemakerError(f"expected a step of at least 0, got {step}")
        first = step * self.batch_size
        return [self._row(place) for place in range(first, first + self.batch_size)]

    def _row(self, place: int) -> int:
        epoch, within = divmod(place, self.rows)
        if self._latest[0] != epoch:
            self._latest = (epoch, self.order(epoch))
        return int(self._latest[1][within])
