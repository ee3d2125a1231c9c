"""What a search costs: every picture through the network, the decoder and the verifier, and the seconds of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..records import Ledger

T = TypeVar("T")


@contextmanager
def metered(network: nn.Module, ledger: Ledger) -> Iterator[Ledger]:
    """Count the rows that go through the network while the block runs; guidance and every sampler are included."""

    def count(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        ledger.network_evaluations += rows_in(args, kwargs)

    handle = network.register_forward_hook(count, with_kwargs=True)
    try:
        yield ledger
    finally:
        handle.remove()


def rows_in(args: tuple, kwargs: dict[str, Any]) -> int:
    """Of the first tensor that a network was called with."""
    return len(next(v for v in [*args, *kwargs.values()] if isinstance(v, Tensor)))


@contextmanager
def timed(ledger: Ledger, part: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        ledger.add(part, time.perf_counter() - began)


@dataclass
class NetworkClock:
    """Rows that went through a network and the seconds inside it, since the clock was hung up."""

    rows: int = 0
    seconds: float = 0.0
    _began: float = 0.0

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[NetworkClock]:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))

        def before(module: nn.Module, args: tuple) -> None:
            self._began = now(device)

        def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            self.seconds += now(device) - self._began
            self.rows += rows_in(args, kwargs)

        handles = [network.register_forward_pre_hook(before), network.register_forward_hook(after, with_kwargs=True)]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def counted(call: Callable[[], T]) -> tuple[T, float]:
    """What the call gives and the floating-point operations of its matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    return result, float(counter.get_total_flops())
