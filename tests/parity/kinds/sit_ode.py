"""SiT's own sampling loops: fixed solvers with the times at which they ask, guidance, its SDE and its last steps."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from class_flows import Times, asked, generator_of, points, read, trajectory
from comparison import Comparison, close

from tastemaker.generators.flow import uniform_times
from tastemaker.generators.paths import expand
from tastemaker.generators.samplers import euler, heun
from tastemaker.generators.sit import FIRST_THREE, SIT, read_network
from tastemaker.generators.solvers import (
    heun2,
    heun3,
    midpoint,
    rk4,
    sde_sigma,
    sde_sigma_mean_last,
    sigma_drift,
)
from tastemaker.protocols import Plan

SOLVERS = {"euler": euler, "heun2": heun2, "heun3": heun3, "midpoint": midpoint, "rk4": rk4}
STATES = {"atol": 1e-4}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    _, inputs, expected = read(folder)
    said = json.loads((folder / "expected.json").read_text())
    network, _ = read_network(folder)
    z = torch.from_numpy(inputs["z"])
    generator = generator_of(network, z.shape[1:], SIT, rule=FIRST_THREE)
    condition = asked(inputs["y"])
    for name in expected.files:
        method, _, number = name.rpartition("_")
        if method in SOLVERS:
            yield from fixed(generator, condition, z, SOLVERS[method], said[name], expected[name], name)
        elif name.startswith("cfg"):
            scale, solver = method.removeprefix("cfg").split("_")
            plan = Plan(SOLVERS[solver], uniform_times(int(number) - 1))
            found = trajectory(generator, asked(inputs["y"], float(scale)), plan, z)
            yield close(name, found[-1], expected[name], **STATES)
        elif name.startswith("dopri5"):
            found = trajectory(generator, condition, Plan(rk4, uniform_times(40)), z)
            yield close(f"{name}, by 40 steps of rk4", found[-1], expected[name], atol=1e-3)
        elif name.startswith("sde"):
            yield from stochastic(generator, condition, z, inputs[f"{name}_draws"], said[name], expected[name], name)


def fixed(generator, condition, z, solver, said, expected, name: str) -> Iterator[Comparison]:
    plan = Plan(solver, points(said["grid"]))
    with Times(generator.network) as calls:
        found = trajectory(generator, condition, plan, z)
    yield close(f"{name}, times", [t for t, _ in calls], said["times_called"], atol=1e-6)
    yield close(name, torch.cat([z[None], found]), expected, **STATES)


def stochastic(generator, condition, z, draws, said, expected, name: str) -> Iterator[Comparison]:
    """Steps on an even grid up to 1 - size, then the last step by its own rule; None: all steps, up to 1."""
    size = 0.0 if said["last_step"] is None else said["last_step_size"]
    times = tuple(np.linspace(0, 1 - size, said["num_steps"]).tolist())
    walk = heun_walk if "Heun" in name else euler_walk
    path = walk(generator, condition, times, z, draws)
    last = path[-1:]  # no last step gives the state again
    if said["last_step"] is not None:  # Tweedie's estimate from 1 - size is an Euler step to 1
        sampler = sde_sigma_mean_last if said["last_step"] == "Mean" else euler
        last = trajectory(generator, condition, Plan(sampler, (times[-1], 1.0)), path[-1])
    yield close(name, torch.cat([path, last]), expected, **STATES)


def euler_walk(generator, condition, times, z, draws):
    return trajectory(generator, condition, Plan(sde_sigma, times), z, draws)


@torch.no_grad()
def heun_walk(generator, condition, times, z, draws):
    """Noise first, then Heun's step along the drift."""
    x, path, drift = z, [], sigma_drift(generator.guided_velocity(condition))
    for before, after, draw in zip(times, times[1:], draws):
        t, s = (torch.full((len(z),), float(v)) for v in (before, after))
        noise = expand((2 * (1 - t) * (s - t)).sqrt(), z) * torch.from_numpy(draw)
        x = heun(drift, x + noise, t, s, 0.0).mean
        path.append(x)
    return torch.stack(path)
