"""The official StableDiffusionPipeline with DDIM: embeddings, network answers, trajectories, pictures."""

import json
import pathlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from comparison import Comparison, close

from tastemaker.generators.diffusers_load import load
from tastemaker.protocols import Condition

LATENTS, IMAGES = {"atol": 5e-5, "rtol": 1e-5}, {"atol": 2e-4}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    generator = load(folder / "pipeline", size=expected["images"].shape[1:3])
    plan = generator.diffusers_plan(config["num_inference_steps"])
    with torch.no_grad():
        yield from texts(generator, config, expected)
        yield close(
            "timesteps", generator.grid.timestep(torch.tensor(plan.times[:-1])), inputs["timesteps"], atol=0.01
        )
        yield from answers(generator, config, inputs, expected)
        path, images = run(generator, plan, condition(config, config["guidance_scale"]), inputs["latents"])
        yield close("latents_per_step", path, expected["latents_per_step"], **LATENTS)
        yield close("final_latents", path[-1], expected["final_latents"], **LATENTS)
        yield close("images", images, expected["images"], **IMAGES)
        path, _ = run(generator, plan, condition(config, 1.0), inputs["latents"])
        yield close("final_latents_guidance1", path[-1], expected["final_latents_guidance1"], **LATENTS)
        noisy = generator.diffusers_plan(config["num_inference_steps"], eta=1.0)
        asked = condition(config, config["guidance_scale"])
        path, _ = run(generator, noisy, asked, inputs["latents"], inputs["eta1_draws"])
        yield close("latents_per_step_eta1", path, expected["latents_per_step_eta1"], **LATENTS)


def condition(config, guidance: float) -> Condition:
    negative = Condition.of([config["negative_prompt"]] * len(config["prompts"]))
    return Condition.of(config["prompts"], guidance, negative=negative)


def texts(generator, config, expected) -> Iterator[Comparison]:
    asked = generator.prepare(condition(config, 2.0))
    yield close("prompt_embeds", asked.cache["text"], expected["prompt_embeds"], **LATENTS)
    yield close("negative_prompt_embeds", asked.negative.cache["text"], expected["negative_prompt_embeds"], **LATENTS)


def answers(generator, config, inputs, expected) -> Iterator[Comparison]:
    """The network's own output at the official latents, the unconditional half first."""
    asked = generator.prepare(condition(config, 2.0))
    both = Condition.concatenate([asked.negative, replace(asked, negative=None)])
    before = np.concatenate([inputs["latents"][None], expected["latents_per_step"][:-1]])
    for k, timestep in enumerate(inputs["timesteps"].tolist()):
        x = torch.from_numpy(before[k]).repeat(2, 1, 1, 1)
        ours = generator.predict(x, torch.full((len(x),), timestep), both)
        yield close(f"unet_outputs[{k}]", ours, expected["unet_outputs"][k], **LATENTS)


def run(generator, plan, asked, latents, draws=None):
    """Latents in diffusers' units after each step (T, B, C, H, W), and the pictures (B, H, W, 3)."""
    state = generator.start(asked, torch.arange(len(asked)), plan)
    start = torch.full((len(asked),), plan.times[0])
    state, path = replace(state, x=generator.straight(torch.from_numpy(latents), start)), []
    for k, time in enumerate(plan.times[1:]):
        state = generator.advance(state, None if draws is None else torch.from_numpy(draws[k]))
        path.append(generator.finish(state.x, torch.full((len(asked),), time)))
    return torch.stack(path), generator.preview(state).clamp(0, 1).permute(0, 2, 3, 1)
