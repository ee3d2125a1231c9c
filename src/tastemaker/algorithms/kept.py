"""What a round of reinforcement learning keeps between its steps, and the memory that takes.

A round draws with the weights as they are, then trains on what was drawn for several steps. A run that is cut in a
round goes on with the same pictures, so they are a part of its checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError
from .anchor import Data, anchored
from .optimise import TrainingState

CGROUP = Path("/sys/fs/cgroup/memory.max")  # of a container, on Linux


@dataclass
class Kept:
    """The round under way: tensors by name, and figures that its steps go on with."""

    number: int = -1
    tensors: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def begin(self, number: int, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """A new round; the figures of before stay where they are not given again."""
        self.number, self.tensors, self.figures = number, tensors, self.figures | figures

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"number": self.number, "tensors": self.tensors, "figures": self.figures}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.number, self.tensors, self.figures = saved["number"], saved["tensors"], saved["figures"]


def free_memory() -> int | None:
    """Bytes that a process of this machine or container may still take; None where the system does not say."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError, AttributeError):
        return None
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    return min(free, int(limit)) if limit.isdigit() else free


def require_memory(needed: int, what: str, advice: str) -> None:
    """Raise TastemakerError where `needed` bytes are more than are free; called before a run begins."""
    free = free_memory()
    if free is not None and needed > free:
        raise TastemakerError(f"{what} needs {gib(needed)} of memory, and {gib(free)} are free; {advice}")


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def update_in_pieces(state: TrainingState, losses: Iterable[Tensor]) -> dict[str, float]:
    """One update from the sum of scalar losses, each sent back before the next is computed, so that one graph is
    held at a time. Returns what `TrainingState.update` does."""
    total = 0.0
    for loss in losses:
        (loss / state.config.accumulate).backward()
        total += float(loss.detach())
    return state.update(torch.tensor(total, requires_grad=True))  # the gradients are there; its own leads nowhere


def with_anchor(
    losses: Iterable[Tensor], generator: Any, data: Data | None, weight: float, seeds: Tensor
) -> Iterator[Tensor]:
    """The losses, and behind them the pretraining loss on the next captioned pictures, where there are any."""
    yield from losses
    if data is not None:
        yield anchored(torch.zeros(()), generator, data, weight, seeds)[0]
