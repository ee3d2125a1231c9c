"""What a round of DRL costs beside the forward and pullback calls that it needs: its buffer filled, then trained on.

    python -m benchmarks.drl [--rows 16] [--repeats 9]

Ours is `drl.train` for one round, with the shipped tiny-flow and alignment as the reward: trajectories, the reward's
gradient, adjoints, losses, the mask, the figures of each step, and the optimiser. In a first round every call of a
network is written down with what was asked of it: an answer, its pullback to x, or its pullback to the weights. Other
is these calls again and nothing else, with one pullback of the decoder and the reward to x. Both in turn, one thread,
in seconds of the processor. Row written: drl_step_overhead, a round over its steps, the median over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmarks.models import tiny_flow
from benchmarks.rows import write
from tastemaker.algorithms import drl
from tastemaker.algorithms.kept import Kept
from tastemaker.algorithms.memoryless import local_linear_scheme
from tastemaker.algorithms.optimise import begin, trainable
from tastemaker.rewards.table import load_reward
from tastemaker.world.grammar import evaluation_prompts

Calls = list[Callable[[], object]]


def again(network: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    """The same call, with the pullback that a training takes of it."""
    x, *rest = (value.detach() for value in inputs)
    weights = list(trainable(network).values())
    if not torch.is_grad_enabled():
        return lambda: answer(network, x, *rest)
    if inputs[0].requires_grad:
        return lambda: pullback(lambda x: network(x, *rest), x)
    return lambda: of_weights(network(x, *rest), weights)


@torch.no_grad()
def answer(network: nn.Module, *inputs: Tensor) -> None:
    network(*inputs)


def pullback(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    x = x.detach().requires_grad_()
    out = function(x)
    torch.autograd.grad(out, x, torch.ones_like(out))


def of_weights(out: Tensor, weights: list[nn.Parameter]) -> None:
    torch.autograd.grad(out, weights, torch.ones_like(out))


@contextmanager
def written_down(*networks: nn.Module) -> Iterator[Calls]:
    """Every call of the networks inside."""
    calls: Calls = []
    hooks = [n.register_forward_pre_hook(lambda n, inputs: calls.append(again(n, inputs))) for n in networks]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16, help="trajectories of the buffer, and of a step")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator, prompts, rows = tiny_flow(), evaluation_prompts(5), options.rows
    base, reward, scheme = generator.reference(), load_reward("alignment"), local_linear_scheme(10)
    config = drl.Config(steps=5, epochs=5, buffer=rows, batch_size=rows, integration_steps=10)

    def one_round() -> None:
        state = begin(generator.network, config.optimiser)
        for _ in drl.train(generator, base, reward, prompts, None, config, state, scheme, Kept()):
            pass

    with written_down(generator.network, base.network) as calls:
        one_round()

    def judged(x: Tensor) -> Tensor:
        return reward.score(generator.codec.decode(x), prompts[:rows])

    def bare() -> None:
        for call in calls:
            call()
        pullback(judged, torch.zeros(rows, *generator.shape))

    pairs = []
    for _ in range(options.repeats):
        pairs.append((seconds(one_round), seconds(bare)))
        print("a round {:.2f} s, its calls alone {:.2f} s".format(*pairs[-1]), flush=True)
    ours, other = (statistics.median(column) / config.steps for column in zip(*pairs))
    write(
        name="drl_step_overhead",
        ours=ours,
        other=other,
        other_is=f"the {len(calls)} network calls of a round of {config.steps} steps and their pullbacks, by step",
        ratio=statistics.median(a / b for a, b in pairs),
        target="<= 1.15",
        unit="CPU s",
        command=" ".join(["python -m benchmarks.drl", *sys.argv[1:]]),
    )


if __name__ == "__main__":
    main()
