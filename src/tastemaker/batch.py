"""Indexing and concatenation along the first axis, for every record that has one row per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .errors import TastemakerError

B = TypeVar("B", bound="Batch")


class Batch:
    """A frozen dataclass of tensors (B, ...), tuples of length B, mappings of these, and shared facts."""

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} must say how many rows it has")

    def __getitem__(self: B, index: Any) -> B:
        rows = torch.atleast_1d(torch.arange(len(self))[index])
        return replace(self, **{f.name: _rows(getattr(self, f.name), rows) for f in fields(self)})  # type: ignore

    @classmethod
    def concatenate(cls: type[B], batches: Sequence[B]) -> B:
        """Rows after rows. Raises TastemakerError where some have a field that others lack."""
        parts = list(batches)
        return cls(**{f.name: _join([getattr(p, f.name) for p in parts]) for f in fields(cls)})  # type: ignore


def _rows(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    if isinstance(value, Batch):
        return value[index]
    if isinstance(value, Mapping):
        return {k: _rows(v, index) for k, v in value.items()}
    return tuple(value[i] for i in index.tolist()) if isinstance(value, tuple) else value


def _join(values: list[Any]) -> Any:
    first = values[0]
    if any((v is None) != (first is None) for v in values):
        raise TastemakerError("cannot join rows that have a field with rows that lack it; give it to all or none")
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, Batch):
        return type(first).concatenate(values)
    if isinstance(first, Mapping):
        if any(v.keys() != first.keys() for v in values):
            raise TastemakerError(f"cannot join rows whose memory differs: {sorted({k for v in values for k in v})}")
        return {k: _join([v[k] for v in values]) for k in first}
    return tuple(x for v in values for x in v) if isinstance(first, tuple) else first
