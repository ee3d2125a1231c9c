"""Exactly what made a run: versions, device, threads, seed and the hashes of the weights it began with."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn

from ..devices import device_name
from ..ranks import world
from .checkpoints import FORMAT
from .processes import wants_shards

EXACT = (
    "python",
    "torch",
    "numpy",
    "tastemaker",
    "device",
    "checkpoint_format",
    "weights",
    "processes",
    "sharded",
)  # what bit-equality needs


def environment(command: Sequence[str], seed: int | None, weights: Mapping[str, str]) -> dict[str, Any]:
    """The content of `versions.json`. weights: name -> sha256 of every network the run began with."""
    return {
        "command": list(command),
        "seed": seed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
        "tastemaker": metadata.version("tastemaker"),
        "platform": f"{sys.platform} {platform.machine()}",
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "checkpoint_format": FORMAT,
        "weights": dict(weights),
        "processes": world(),
        "sharded": wants_shards(),
    }


def weight_hash(network: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: before -> now` for every value that differs, nested keys with dots."""
    out = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            out.append(f"{prefix}{key}: {_short(old)} -> {_short(new)}")
    return out


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
