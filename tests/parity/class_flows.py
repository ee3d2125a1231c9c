"""What the kinds of class generators share: a case's network as a generator, its trajectories, what it was asked."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tastemaker.generators.class_flow import ClassFlow
from tastemaker.generators.flow import PixelCodec
from tastemaker.protocols import Condition, Plan
from tastemaker.records import Prompt


def read(folder: pathlib.Path) -> tuple[dict[str, Any], Any, Any]:
    """config.json, inputs and expected arrays."""
    config = json.loads((folder / "config.json").read_text())
    return config, np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")


def generator_of(network, shape: Sequence[int], release, **more) -> ClassFlow:
    """What the network works on is what is compared."""
    return ClassFlow(network, shape, PixelCodec(), release, **more)


def asked(labels, guidance: float = 1.0, null: int | None = None) -> Condition:
    """Class numbers as prompts; the number `null` as the empty prompt."""
    prompts = [Prompt("") if int(y) == null else Prompt(f"class {y}", label=int(y)) for y in labels]
    return Condition.of(prompts, guidance)


@torch.no_grad()
def trajectory(generator: ClassFlow, condition: Condition, plan: Plan, z, draws=None) -> Tensor:
    """States after each step (T, B, ...). draws (steps with noise, B, ...): in place of the seeds' own."""
    state = generator.start(condition, torch.arange(len(condition)), plan)
    state = replace(state, x=torch.as_tensor(z).float())
    path = []
    for k in range(plan.steps):
        given = torch.from_numpy(draws[k]).float() if draws is not None and k < len(draws) else None
        state = generator.advance(state, given)
        path.append(state.x)
    return torch.stack(path)


class Times:
    """Keeps (time, rows) of every call of a network while it is open."""

    def __init__(self, network):
        self.network, self.calls = network, []

    def __enter__(self) -> list[tuple[float, int]]:
        self.hook = self.network.register_forward_pre_hook(
            lambda _, inputs: self.calls.append((float(inputs[1][0]), len(inputs[0])))
        )
        return self.calls

    def __exit__(self, *error) -> None:
        self.hook.remove()


def points(times: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(t) for t in times)
