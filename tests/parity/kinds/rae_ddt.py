"""RAE's network, its guidance, its shifted grids and its loops, which run from t = 1, noise, towards 0."""

import json
import pathlib
from collections.abc import Iterator

import torch
from class_flows import asked, generator_of, read, trajectory
from comparison import Comparison, close, equal

from tastemaker.generators.class_flow import GuidanceRule, closed
from tastemaker.generators.dit_parts import rotary_tables
from tastemaker.generators.paths import interpolate
from tastemaker.generators.rae import rae_release, read_network, shift_of, shifted_grid
from tastemaker.generators.samplers import euler, heun
from tastemaker.protocols import Plan

OUT, STATES, GRID = {"atol": 2e-5}, {"atol": 1e-4}, {"atol": 1e-6}
SOLVERS = {"euler": euler, "heun2": heun}  # no run reaches t = 1, where heun would be Euler
CFG, INTERVAL = 1.7, (0.1, 0.5)  # of the guided answers


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config, inputs, expected = read(folder)
    network, _ = read_network(folder)
    yield equal("depth", list(network.config.depths), config["depth"])
    for name, tables in (("enc", network.enc_feat_rope), ("dec", network.dec_feat_rope)):
        head = tables.freqs_cos.shape[1]
        yield close(f"{name}_feat_rope", torch.stack(rotary_tables(config["input_size"], head)),
                    torch.stack(tables.tables()), **GRID)  # fmt: skip
    generator = generator_of(network, inputs["x"].shape[1:], rae_release(config["time_dist_shift"]))
    yield from answers(generator, config, inputs, expected)
    for name, said in json.loads((folder / "expected.json").read_text())["grids"].items():
        numbers, count = (int(part.strip("dimn")) for part in name.split("_"))
        yield close(f"{name}, shift", shift_of(numbers), said["shift"], **GRID)
        yield close(name, [1 - t for t in shifted_grid(count - 1, said["shift"])], said["grid"], **GRID)
    for name in (n for n in expected.files if n.startswith("ode_")):
        yield run(generator, config["time_dist_shift"], inputs, expected[name], name)
    noise, data, t = (torch.from_numpy(inputs[f"plan_{k}"]) for k in ("noise", "data", "t"))
    yield close("plan_xt", interpolate(data, noise, 1 - t), expected["plan_xt"], **GRID)
    yield close("plan_target", -generator.release.target(data, noise, 1 - t), expected["plan_target"], **GRID)


@torch.no_grad()
def answers(generator, config, inputs, expected) -> Iterator[Comparison]:
    x, t, y = (torch.from_numpy(inputs[k]) for k in ("x", "t", "y"))
    yield close("out", -generator.velocity(x, 1 - t, asked(y, null=config["null_label"])), expected["out"], **OUT)
    half = len(inputs["cfg_x"]) // 2
    x, t, y = (torch.from_numpy(inputs[f"cfg_{k}"])[:half] for k in ("x", "t", "y"))
    for name, interval in (("cfg_out", (0.0, 1.0)), ("cfg_out_interval", INTERVAL)):
        generator.rule = GuidanceRule(closed(*interval))
        ours = -generator.guided_velocity(asked(y, CFG))(x, 1 - t)
        yield close(name, ours.repeat(2, 1, 1, 1), expected[name], **OUT)


def run(generator, shift: float, inputs, expected, name: str) -> Comparison:
    """`ode_SOLVER_POINTS` with all states, or with `_final` the last."""
    _, solver, number, *final = name.split("_")
    plan = Plan(SOLVERS[solver], shifted_grid(int(number) - 1, shift))
    z = torch.from_numpy(inputs["z"])
    path = torch.cat([z[None], trajectory(generator, asked(inputs["z_y"]), plan, z)])
    return close(name, path[-1] if final else path, expected, **STATES)
