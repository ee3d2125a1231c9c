"""Parts by prompt: everything said about one prompt lies on one side, so that no test prompt was trained on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from ..errors import TastemakerError

T = TypeVar("T")


def key_of(text: str, prompt_id: str = "") -> str:
    """What makes two prompts one: the words, whatever their case and spaces; the id where there are no words."""
    return " ".join(text.casefold().split()) or f"id {prompt_id}"


def part_of(key: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The part that a prompt belongs to, a pure function of its key: it stays there when other prompts are added.

    shares: name -> share, summing to 1; the parts have these sizes in expectation.
    """
    words = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    place, reached = int.from_bytes(words[:8], "big") / 2**64, 0.0
    for name, share in shares.items():
        reached += share
        if place < reached:
            return name
    return next(name for name in reversed(list(shares)) if shares[name] > 0)  # the sum was rounded below 1


def split_rows(
    rows: Iterable[T], key: Callable[[T], str], shares: Mapping[str, float], seed: int = 0
) -> dict[str, list[T]]:
    """Rows by part, each in its order; `key` gives a row's prompt (see `key_of`).

    Raises TastemakerError for shares that are negative or do not sum to 1.
    """
    if not shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise TastemakerError(f"expected shares of at least 0 that sum to 1, got {dict(shares)}")
    parts: dict[str, list[T]] = {name: [] for name in shares}
    for row in rows:
        parts[part_of(key(row), shares, seed)].append(row)
    return parts
