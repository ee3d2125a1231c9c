"""Official ImageReward with tiny random weights: tokens, pixels to the byte, inner states, rewards and ranks."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close, equal
from PIL import Image

from tastemaker.encoders.pixels import as_tensor, normalise
from tastemaker.records import Prompt
from tastemaker.rewards.imagereward import LENGTH, ImageReward, load_imagereward


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    vit = json.loads((folder / "config.json").read_text())["vit"]
    text = json.loads((folder / "med_config.json").read_text())
    heads = vit["num_heads"], text["num_attention_heads"]
    reward = load_imagereward(folder / "weights.safetensors", folder / "vocab.txt", *heads)
    expected = json.loads((folder / "expected.json").read_text())
    pictures = [Image.open(folder / "images" / f"{name}.png") for name in expected["images"]]
    with torch.no_grad():
        yield from tokens(reward, json.loads((folder / "tokens.json").read_text()))
        yield from pixels(reward, pictures, np.load(folder / "pixels.npz"))
        yield from rewards(reward, pictures, expected["prompts"], expected["f32"], 5e-5, "f32")
        reward.network.double()
        yield from rewards(reward, pictures, expected["prompts"], expected["f64"], 1e-9, "f64")
        yield from states(reward, pictures, expected["prompts"], np.load(folder / "intermediate_f64.npz"))


def tokens(reward: ImageReward, stored) -> Iterator[Comparison]:
    ids, mask = reward.tokens.encode(stored["prompts"], stored["max_length"])
    yield equal("input_ids", ids.tolist(), stored["input_ids"])
    yield equal("attention_mask", mask.tolist(), stored["attention_mask"])
    yield equal("max_length", LENGTH, stored["max_length"])


def pixels(reward: ImageReward, pictures, stored) -> Iterator[Comparison]:
    """Files as the release opens them; tensors of RGB and grey ones by Pillow and by the differentiable path."""
    opened = torch.stack([reward.view.open(p) for p in pictures])
    yield close("crop_u8", (opened * 255).round().permute(0, 2, 3, 1), stored["crop_u8"])
    yield close("norm_stride32", normalise(opened)[..., ::32, ::32], stored["norm_stride32"], atol=1e-6)
    for picture, crop in zip(pictures, stored["crop_u8"]):
        if picture.mode in ("RGB", "L"):
            images = as_tensor(picture)[None]
            with torch.enable_grad():
                differentiable = reward.view(images.requires_grad_()).detach()
            yield close("tensor", (reward.view(images.detach())[0] * 255).round().permute(1, 2, 0), crop)
            yield close("differentiable", (differentiable[0] * 255).round().permute(1, 2, 0), crop)


def rewards(reward: ImageReward, pictures, prompts, expected, atol: float, what: str) -> Iterator[Comparison]:
    for k, text in enumerate(prompts):
        said = expected[str(k)]
        scores = reward.score_pictures(pictures, [Prompt(text)] * len(pictures))
        yield close(f"{what} rewards[{k}]", scores, said["rewards"] if what == "f32" else said, atol=atol)
        if what == "f32":
            yield equal(f"ranks[{k}]", (scores.argsort(descending=True).argsort() + 1).tolist(), said["ranks"])


def states(reward: ImageReward, pictures, prompts, stored) -> Iterator[Comparison]:
    blip = reward.network.blip
    seen = blip.visual_encoder(normalise(torch.stack([reward.view.open(p) for p in pictures])).double())
    yield close("visual tokens", seen[:, [0, 1, 100, 196]], stored["visual_tokens_0_1_100_196"], atol=1e-9)
    for k, text in enumerate(prompts):
        ids, mask = (t.expand(len(seen), -1) for t in reward.tokens.encode([text], LENGTH))
        read = blip.text_encoder(ids, mask, seen)[:, 0]
        yield close(f"text state[{k}]", read, stored["text_cls_after_cross_attention"][k], atol=1e-9)
