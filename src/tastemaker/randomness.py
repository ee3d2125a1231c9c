"""Randomness is an argument: one seed per image, counter-based, so image k is the same alone or in any batch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def mix(*words: int) -> int:
    """A 63-bit number that depends on every word (splitmix64)."""
    h = 0
    for word in words:
        h = (h ^ (word & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        h = (h ^ h >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        h ^= h >> 31
    return h >> 1


def stream(seed: int, branch: int = 0, step: int = 0, purpose: str = "") -> np.random.Generator:
    """The random numbers of one image at one step for one purpose, whatever else is in the batch."""
    return np.random.Generator(np.random.Philox(key=[mix(seed, branch), mix(step, zlib.crc32(purpose.encode()))]))


def noise(shape: Sequence[int], seeds: Tensor, branch: Tensor, step: Tensor, purpose: str) -> Tensor:
    """Standard normal (B, *shape), float32: row k is a pure function of (seed, branch, step, purpose)."""
    rows = zip(seeds.tolist(), branch.tolist(), step.tolist())
    draws = [stream(*row, purpose).standard_normal(tuple(shape), np.float32) for row in rows]
    return torch.from_numpy(np.stack(draws)) if draws else torch.empty(0, *shape)
