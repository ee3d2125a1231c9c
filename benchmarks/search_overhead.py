"""What a search costs beside the generator and verifier calls that it needs.

    python -m benchmarks.search_overhead [--model tiny-masked] [--methods best-of-n parm ...] [--n 8] [--repeats 5]

The searches are called as `tastemaker search` calls them: the account of every path, FLOPs, remembered answers and
looks for the strips are on. Beside each call of `start`, `advance` and `preview` of the generator, and of `score` of
the reward that judges, the same call is made once more, bare, on copies of both, in turn before and after it; ours is
the search without these, other is their sum. FLOPs are counted on the first call of each kind, which is slower for
it, so that a search of few pictures has the larger ratio. One thread, in seconds of the processor. Row written:
search_overhead, of the method with the largest median over the repeats; of another model search_overhead_MODEL.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from benchmarks.rows import write
from tastemaker.records import Ledger
from tastemaker.rewards.cached import Cached
from tastemaker.rewards.table import load_reward
from tastemaker.rewards.zero_shot import ZeroShot
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.search import METHODS, PARTING, stochastic
from tastemaker.world.grammar import evaluation_prompts

TESTED = ("best-of-n", "parm", "prm", "halving", "particles")
MODEL = "tiny-masked"
VERBS = ("start", "advance", "preview")
MIDDLE, SPREAD = 0.5, 0.1  # of the zero-shot judgement: about half of the paths are cut off


class Twin:
    """Makes each call on the thing itself and on its copy, and times the latter."""

    def __init__(self, true: Callable[..., Any], bare: Callable[..., Any]):
        self.true, self.bare, self.seconds, self.calls = true, bare, 0.0, 0

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        self.calls += 1
        first = self.calls % 2
        if first:
            self._timed(*inputs, **named)
        out = self.true(*inputs, **named)
        if not first:
            self._timed(*inputs, **named)
        return out

    def _timed(self, *inputs: Any, **named: Any) -> None:
        with _disable_current_modes():  # the search counts FLOPs of its first calls, which makes them slow
            began = time.process_time()
            self.bare(*inputs, **named)
            self.seconds += time.process_time() - began


@contextmanager
def twinned(things: dict[Any, tuple[str, ...]]) -> Iterator[list[Twin]]:
    """These methods of these things, each with a copy beside it."""
    made: list[tuple[Any, str, Twin]] = []
    for thing, names in things.items():
        other = copy.deepcopy(thing)  # before the search hangs its clock on the network
        made += [(thing, name, Twin(getattr(thing, name), getattr(other, name))) for name in names]
    for thing, name, twin in made:
        setattr(thing, name, twin)
    try:
        yield [twin for *_, twin in made]
    finally:
        for thing, name, _ in made:
            delattr(thing, name)


def measured(method: str, generator: Any, reward: Any, n: int, prompts: int) -> tuple[float, float]:
    """Seconds of one search without the bare calls, and of the bare calls."""
    room, asked = METHODS[method], evaluation_prompts(4)[:prompts]
    plan = stochastic(generator.plan) if method in PARTING else generator.plan
    verifier, ledger = Cached(ZeroShot(reward, 0.5, MIDDLE, SPREAD)), Ledger()
    config = room.Config(n=n)
    with twinned({generator: VERBS, reward: ("score",)}) as twins, torch.no_grad():
        began = time.process_time()
        for _ in room.search(generator, verifier, asked, range(prompts), config, ledger, plan, None):
            pass
        whole = time.process_time() - began
    bare = sum(twin.seconds for twin in twins)
    return whole - bare, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--methods", nargs="+", default=TESTED, choices=TESTED)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator, reward = load_generator(options.model), load_reward("alignment")
    found = {}
    measured(options.methods[0], generator, reward, options.n, options.prompts)
    for method in options.methods:
        rows = [measured(method, generator, reward, options.n, options.prompts) for _ in range(options.repeats)]
        found[method] = [statistics.median(column) for column in zip(*((a, b, a / b) for a, b in rows))]
        print(
            f"{method}: {found[method][0]:.3g} over {found[method][1]:.3g} CPU s, {found[method][2]:.3f}", flush=True
        )
    worst = max(found, key=lambda method: found[method][2])
    ours, other, ratio = found[worst]
    write(
        name="search_overhead" if options.model == MODEL else f"search_overhead_{options.model}".replace("-", "_"),
        ours=ours,
        other=other,
        other_is=f"the generator's and the verifier's calls alone; {worst} (measured: {', '.join(found)}), "
        f"{options.model}, N = {options.n}, {options.prompts} prompts",
        ratio=ratio,
        target="<= 1.05",
        unit="CPU s",
        command=" ".join(["python -m benchmarks.search_overhead", *sys.argv[1:]]),
    )


if __name__ == "__main__":
    main()
