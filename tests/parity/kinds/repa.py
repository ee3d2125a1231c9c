"""REPA's network, its projectors and its own loops, which run from t = 1, noise, to t = 0; ours run from 0 to 1."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from class_flows import Times, asked, generator_of, read, trajectory
from comparison import Comparison, close, equal

from tastemaker.generators.class_flow import GuidanceRule, closed
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler, heun
from tastemaker.generators.sit import REPA, read_network
from tastemaker.generators.solvers import sde_sigma_mean_last
from tastemaker.protocols import Plan

OUT, STATES = {"atol": 2e-5}, {"atol": 1e-4}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config, inputs, expected = read(folder)
    network, _ = read_network(folder)
    x, t, y = (torch.from_numpy(inputs[k]) for k in ("x", "t", "y"))
    yield equal("projectors", [list(p) for p in network.config.projectors],
                [[config["projector_dim"], z] for z in config["z_dims"]])  # fmt: skip
    generator = generator_of(network, x.shape[1:], REPA)
    with torch.no_grad():
        ours = generator.velocity(x, 1 - t, asked(y, null=config["null_label"]))
        yield close("out", -ours, expected["out"], **OUT)
        for i, found in enumerate(network.projections(x, t, y)):
            yield close(f"z{i}", found, expected[f"z{i}"], **OUT)
    for name, said in json.loads((folder / "expected.json").read_text()).items():
        yield from run(generator, inputs, name, said, expected[name])


def run(generator, inputs, name: str, said, expected) -> Iterator[Comparison]:
    inside = closed(said.get("guidance_low", 0.0), said.get("guidance_high", 1.0))
    generator.rule = GuidanceRule(inside, held=True)
    condition = asked(inputs["z_y"], said["cfg_scale"])
    draws, n = None, said["num_steps"]
    if "draws" in said:
        plan = Plan(sde_sigma_mean_last, (*(1 - np.linspace(1, 0.04, n)).tolist(), 1.0))
        draws = inputs[f"{name}_draws"]
    else:
        plan = Plan(heun if said["heun"] else euler, uniform_times(n))
    with Times(generator.network) as calls:
        found = trajectory(generator, condition, plan, inputs["z"], draws)
    yield close(name, found[-1], expected, **STATES)
    if "times_and_batch" in said:
        times, rows = zip(*said["times_and_batch"])
        yield close(f"{name}, times", [t for t, _ in calls], times, atol=1e-6)
        yield equal(f"{name}, rows", tuple(b for _, b in calls), rows)
