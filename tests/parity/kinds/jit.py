"""JiT's network, its velocity, its loss and its own Euler and Heun loops, in the release's units."""

import json
import pathlib
from collections.abc import Iterator
from functools import partial

import torch
from class_flows import Times, asked, generator_of, read, trajectory
from comparison import Comparison, close

from tastemaker.generators.class_flow import GuidanceRule, opened
from tastemaker.generators.jit import (
    in_native_units,
    jit_release,
    native_state,
    our_time,
    our_times,
    read_network,
    stretch,
)
from tastemaker.generators.paths import expand
from tastemaker.generators.samplers import euler, heun
from tastemaker.protocols import Draw, Plan

OUT, VELOCITY, STATES = {"atol": 2e-5}, {"atol": 5e-4}, {"atol": 2e-4}
SAMPLERS = {"euler": euler, "heun": heun}
INTERVAL = (0.1, 1.0)  # where expected.json names none


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config, inputs, expected = read(folder)
    said = json.loads((folder / "expected.json").read_text())
    network, _ = read_network(folder)
    scale = config["noise_scale"]
    generator = generator_of(network, inputs["x"].shape[1:], jit_release(scale))
    yield from answers(generator, config, inputs, expected)
    for name, about in said.items():
        if isinstance(about, dict):
            yield from run(generator, scale, inputs, about, expected[f"traj_{name}"], name)
    for name in (n for n in expected.files if n.startswith("final_heun_cfg_")):
        steps = int(name.removeprefix("final_heun_cfg_").removesuffix("steps"))
        found = native_path(generator, scale, inputs, heun, steps, 2.2, INTERVAL)
        yield close(name, found[-1], expected[name], **STATES)
    yield training_loss(generator, scale, inputs, said["training_loss"])


@torch.no_grad()
def answers(generator, config, inputs, expected) -> Iterator[Comparison]:
    z, u, y = (torch.from_numpy(inputs[k]) for k in ("x", "t", "y"))
    yield close("x_pred", generator.network(z, u, y), expected["x_pred"], **OUT)
    a = config["noise_scale"]
    t = our_time(u, a)
    d = expand(stretch(t, a), z)
    x = z * d / a
    v = generator.velocity(x, t, asked(y, null=config["null_label"]))
    yield close("velocity", d * v - (a - 1) * x, expected["velocity"], **VELOCITY)


def run(generator, scale, inputs, said, expected, name: str) -> Iterator[Comparison]:
    steps, interval = said["num_steps"], said.get("cfg_interval", INTERVAL)
    with Times(generator.network) as calls:
        found = native_path(generator, scale, inputs, SAMPLERS[said["method"]], steps, said["cfg_scale"], interval)
    yield close(f"traj_{name}", found, expected, **STATES)
    theirs = [t for t, null in said["times_and_is_null"] if not null]  # ours asks both branches in one call
    yield close(f"traj_{name}, times", [t for t, _ in calls], theirs, atol=2e-6)


def native_path(generator, scale, inputs, sampler, steps: int, guidance: float, interval):
    generator.rule = GuidanceRule(opened(*interval))
    plan = Plan(partial(in_native_units, sampler, scale), our_times(steps, scale))
    found = trajectory(generator, asked(inputs["labels"], guidance), plan, inputs["z0"] / scale)
    after = torch.tensor(plan.times[1:])
    return torch.stack([native_state(x, t.expand(len(x)), scale) for x, t in zip(found, after)])


@torch.no_grad()
def training_loss(generator, scale, inputs, expected: float) -> Comparison:
    x1, noise, u = (torch.from_numpy(inputs[f"train_{k}"]) for k in ("x", "noise", "t"))
    t = our_time(u, scale)
    loss = generator.loss(x1, asked(inputs["train_labels"]), Draw(t, noise)) * stretch(t, scale) ** 2
    return close("training_loss", loss.mean(), expected, rtol=1e-4)
