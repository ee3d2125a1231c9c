"""The official StableDiffusion3Pipeline with flow-matching Euler: embeddings, answers, trajectories, pictures."""

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
EMBEDDINGS = {"prompt_embeds": "text", "pooled_prompt_embeds": "pooled"}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    inputs, expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    size = (config["height"], config["width"])
    generator = load(folder / "pipeline", size=size, sequence_length=config["max_sequence_length"])
    plan = generator.native_plan(config["num_inference_steps"])
    yield close("sigmas", 1 - np.array(plan.times), inputs["sigmas"], atol=1e-6)
    with torch.no_grad():
        yield from texts(generator, config, expected)
        yield from answers(generator, config, inputs, expected)
        path, images = run(generator, plan, condition(config, config["guidance_scale"]), inputs["latents"])
        yield close("latents_per_step", path, expected["latents_per_step"], **LATENTS)
        yield close("final_latents", path[-1], expected["final_latents"], **LATENTS)
        yield close("images", images, expected["images"], **IMAGES)
        path, _ = run(generator, plan, condition(config, 1.0), inputs["latents"])
        yield close("final_latents_guidance1", path[-1], expected["final_latents_guidance1"], **LATENTS)


def condition(config, guidance: float) -> Condition:
    negative = Condition.of([config["negative_prompt"]] * len(config["prompts"]))
    return Condition.of(config["prompts"], guidance, negative=negative)


def texts(generator, config, expected) -> Iterator[Comparison]:
    asked = generator.prepare(condition(config, 2.0))
    for theirs, ours in EMBEDDINGS.items():
        yield close(theirs, asked.cache[ours], expected[theirs], **LATENTS)
        yield close(f"negative_{theirs}", asked.negative.cache[ours], expected[f"negative_{theirs}"], **LATENTS)


def answers(generator, config, inputs, expected) -> Iterator[Comparison]:
    """The network's own output at the official latents, the unconditional half first."""
    asked = generator.prepare(condition(config, 2.0))
    both = Condition.concatenate([asked.negative, replace(asked, negative=None)])
    before = np.concatenate([inputs["latents"][None], expected["latents_per_step"][:-1]])
    for k, timestep in enumerate(inputs["timesteps"].tolist()):
        x = torch.from_numpy(before[k]).repeat(2, 1, 1, 1)
        ours = generator.predict(x, torch.full((len(x),), timestep), both)
        yield close(f"transformer_outputs[{k}]", ours, expected["transformer_outputs"][k], **LATENTS)


def run(generator, plan, asked, latents):
    """Latents after each step (T, B, C, H, W), and the pictures (B, H, W, 3)."""
    state = replace(generator.start(asked, torch.arange(len(asked)), plan), x=torch.from_numpy(latents))
    path = []
    for _ in range(plan.steps):
        state = generator.advance(state)
        path.append(state.x)
    return torch.stack(path), generator.preview(state).clamp(0, 1).permute(0, 2, 3, 1)
