"""What a search costs: every picture through the network, the decoder and the verifier, and the seconds of each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..records import Ledger


@contextmanager
def metered(network: nn.Module, ledger: Ledger) -> Iterator[Ledger]:
    """Count the rows that go through the network while the block runs; guidance and every sampler are included."""

    def count(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        first = next(v for v in [*args, *kwargs.values()] if isinstance(v, Tensor))
        ledger.network_evaluations += len(first)

    handle = network.register_forward_hook(count, with_kwargs=True)
    try:
        yield ledger
    finally:
        handle.remove()


@contextmanager
def timed(ledger: Ledger, part: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        ledger.add(part, time.perf_counter() - began)
