"""Where networks work: on the GPU where there is one, else on the processor. `CUDA_VISIBLE_DEVICES=` hides GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")
NOT_ENTERED = (type, FunctionType, MethodType, ModuleType, torch.Tensor, str, bytes)


def best_device() -> torch.device:
    """Of several processes each has set its own as the current one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def place(thing: T, device: torch.device | None = None) -> T:
    """The same generator, reward, encoder or list of them with every network in it on the device; None: the best.

    Networks are found in its attributes, and in theirs, so that a codec's or an encoder's network moves too.
    """
    device, seen = device or best_device(), set[int]()

    def visit(found: Any) -> None:
        if id(found) in seen or isinstance(found, NOT_ENTERED):
            return
        seen.add(id(found))
        if isinstance(found, nn.Module):
            found.to(device)
            return
        inside = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
        for value in found if isinstance(found, (list, tuple)) else list(inside.values()):
            visit(value)

    visit(thing)
    return thing
