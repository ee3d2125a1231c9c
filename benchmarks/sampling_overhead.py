"""What the sampling loop costs beside the network calls it makes: sampling.sample over the same calls, bare.

    python -m benchmarks.sampling_overhead [--batch 16] [--guidance 1.0] [--repeats 31]

The loop is `sampling.sample` as users call it. Beside each of its network calls the same call is made once more,
bare, in turn before and after it; ours is the loop without these, other is their sum. So the two sides are never more
than one call apart in time, and what else the machine does hits both. One thread, in seconds of the processor. Row
written: sampling_overhead, the median over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from benchmarks.models import tiny_flow
from benchmarks.rows import write
from tastemaker.sampling import sample
from tastemaker.world.grammar import evaluation_prompts


class Twin:
    """Makes each call of a network twice, and times the bare second one."""

    def __init__(self, network: nn.Module):
        self.forward, self.seconds, self.calls = network.forward, 0.0, 0

    def __call__(self, *inputs, **named):
        self.calls += 1
        first = self.calls % 2
        if first:
            self.bare(*inputs, **named)
        out = self.forward(*inputs, **named)
        if not first:
            self.bare(*inputs, **named)
        return out

    @torch.no_grad()
    def bare(self, *inputs, **named) -> None:
        began = time.process_time()
        self.forward(*inputs, **named)
        self.seconds += time.process_time() - began


@contextmanager
def twinned(networks: Iterable[nn.Module]) -> Iterator[list[Twin]]:
    twins = {network: Twin(network) for network in networks}
    for network, twin in twins.items():
        network.forward = twin  # type: ignore[method-assign]
    try:
        yield list(twins.values())
    finally:
        for network in twins:
            del network.forward


def measured(networks: Iterable[nn.Module], loop: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the loop without the bare calls, and of the bare calls."""
    with twinned(networks) as twins:
        began = time.process_time()
        loop()
        whole = time.process_time() - began
    bare = sum(twin.seconds for twin in twins)
    return whole - bare, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=31)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator, prompts = tiny_flow(), evaluation_prompts(5)[: options.batch]

    def loop() -> None:
        sample(generator, prompts, range(options.batch), guidance=options.guidance)

    networks = list(generator.parts.values())  # the flow's network and the decoder
    measured(networks, loop)
    rows = [measured(networks, loop) for _ in range(options.repeats)]
    ours, other = (statistics.median(column) for column in zip(*rows))
    write(
        name="sampling_overhead",
        ours=ours,
        other=other,
        other_is=f"the network calls alone, {generator.plan.steps} steps and the decoder, batch {options.batch}",
        ratio=statistics.median(a / b for a, b in rows),
        target="<= 1.03",
        unit="CPU s",
        command=" ".join(["python -m benchmarks.sampling_overhead", *sys.argv[1:]]),
    )


if __name__ == "__main__":
    main()
