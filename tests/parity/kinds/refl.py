"""ImageReward's ReFL: its loss, which steps run without and with a gradient, and the gradient of one late step.

The fixture's network answers noise: (1 + t / 1000) W x with the native timestep t. Its rollout is the ancestral DDPM
sampler on the folder's grid; the noise is given.
"""

import json
import pathlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comparison import Comparison, close, equal
from torch import Tensor, nn

from tastemaker.algorithms.refl import Config, late_state, late_step, official_loss
from tastemaker.generators.diffusers_grid import Grid, grid_of, native_times, native_timesteps
from tastemaker.generators.flow import FlowGenerator
from tastemaker.generators.paths import eps_to_velocity, expand, vp_scale
from tastemaker.generators.samplers import ddpm
from tastemaker.protocols import Condition, Plan

GIVEN = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "clip_sample", "variance_type")
DRAWS = 4000  # of the late step: each of ten is missed with a chance of e^-400


class Latents:
    """What the network works on is what is compared."""

    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        return images

    def decode(self, x1: Tensor) -> Tensor:
        return x1


class Mixing(nn.Module):
    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return expand(1 + timestep / 1000, x) * torch.einsum("dc,bchw->bdhw", self.weight, x)


class Official(FlowGenerator):
    """The fixture's network on its grid, with its start and its noise. Keeps the timesteps that it was asked for."""

    def __init__(self, weight: Tensor, grid: Grid, plan: Plan, latents: Tensor, draws: Tensor):
        super().__init__(Mixing(weight), latents.shape[1:], Latents(), plan)
        self.grid, self.latents, self.draws, self.asked = grid, latents, draws, []

    def start(self, condition, seeds, plan=None, branch=None):
        state = super().start(condition, seeds, plan, branch)
        t = torch.full((len(seeds),), state.plan.times[0])
        return replace(state, x=self.latents / expand(vp_scale(t), self.latents))

    def advance(self, state, noise=None, grad=False):
        return super().advance(state, self.draws[int(state.step[0])], grad)

    def predict_velocity(self, x, t, condition):
        timestep = self.grid.timestep(t)
        self.asked.append((round(float(timestep[0])), torch.is_grad_enabled()))
        return eps_to_velocity(self.network(expand(vp_scale(t), x) * x, timestep), x, t)


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    inputs, arrays = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    yield from losses(torch.from_numpy(inputs["rewards"]), expected["loss"])
    grid, timesteps = native_grid(config)
    yield equal("all_timesteps", timesteps.tolist(), expected["all_timesteps"])
    yield from late_steps(config)
    for m in sorted({row["mid_index"] for row in expected["schedule"]} | drawn_mid_indices(inputs)):
        yield from chain(m, grid, timesteps, inputs, arrays, expected["schedule"])


def losses(rewards: Tensor, rows: list[dict[str, Any]]) -> Iterator[Comparison]:
    for row in rows:
        raw = rewards.clone().requires_grad_()
        loss = official_loss(raw, row["grad_scale"])
        loss.mean().backward()
        what = f"loss at scale {row['grad_scale']:g}"
        yield close(what, loss.mean().detach(), row["loss"], atol=1e-6)
        per_sample = official_loss(rewards, 1.0)
        yield close(f"{what}, per sample", per_sample, row["per_sample"], atol=1e-6)
        yield close(f"{what}, gradient", raw.grad, row["grad_rewards"], atol=1e-6)


def native_grid(config: dict[str, Any]) -> tuple[Grid, Tensor]:
    """Through the scheduler's own configuration, as a folder's is read."""
    from diffusers import DDPMScheduler

    more = {k: config[k] for k in ("steps_offset", "timestep_spacing", "prediction_type") if k in config}
    scheduler = DDPMScheduler(**{k: config[k] for k in GIVEN if k in config}, **more)
    return grid_of(scheduler), native_timesteps(scheduler, config["inference_steps"])


def late_steps(config: dict[str, Any]) -> Iterator[Comparison]:
    """The drawn indices are all of the official range, ends included, and no others."""
    low, high = config["mid_index_range"]
    total = config["inference_steps"]
    ours = Config(first_late=low / total)
    yield equal(
        "late steps", {late_step(ours, total, k) for k in range(DRAWS)}, set(range(low, min(high + 1, total)))
    )


def drawn_mid_indices(inputs) -> set[int]:
    return {int(name.removeprefix("noise_mid")) for name in inputs.files if name.startswith("noise_mid")}


def chain(m: int, grid: Grid, timesteps: Tensor, inputs, arrays, schedule) -> Iterator[Comparison]:
    """Steps 0 .. m - 1 without a gradient, step m with one; numbers where the fixture has noise for this m."""
    latents, plan = torch.from_numpy(inputs["latents0"]), Plan(ddpm, native_times(grid, timesteps))
    given = f"noise_mid{m}" in inputs.files
    draws = torch.from_numpy(inputs[f"noise_mid{m}"]) if given else torch.zeros(m, *latents.shape)
    generator = Official(torch.from_numpy(inputs["W"]), grid, plan, latents, draws)
    condition, seeds = Condition.of([""] * len(latents)), torch.arange(len(latents))
    state = late_state(generator, condition, seeds, m)
    x0 = generator.preview(state, grad=True)
    for row in schedule:
        if row["mid_index"] == m:
            without = [t for t, grad in generator.asked if not grad]
            yield equal(f"timesteps without a gradient, {m}", without, row["no_grad_timesteps"])
            yield equal(f"timesteps with one, {m}", [t for t, g in generator.asked if g], row["grad_timesteps"])
            yield equal(f"network calls, {m}", len(generator.asked), row["network_calls"])
    if given:
        before = generator.grid.time(timesteps[m : m + 1]).expand(len(latents))
        (x0 * torch.linspace(-1, 1, x0.numel()).reshape(x0.shape)).sum().backward()
        found = {
            "latents": expand(vp_scale(before), state.x) * state.x,
            "pred_x0": x0.detach(),
            "grad_W": generator.network.weight.grad,
        }
        for name, ours in found.items():
            theirs = arrays[f"{name}_mid{m}"]
            yield close(f"{name}_mid{m}", ours, theirs, rtol=1e-4, atol=1e-6 * float(np.abs(theirs).max()))
