"""PickScore's formula on a tiny CLIPModel folder: pixels, image vectors, scores and preferences."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close
from listed_tokens import ListedTokens
from PIL import Image

from tastemaker.encoders.pixels import as_tensor, normalise
from tastemaker.records import Prompt
from tastemaker.rewards.pickscore import PickScore, load_pickscore, preference


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    expected = json.loads((folder / "expected.json").read_text())
    stored = json.loads((folder / "tokens.json").read_text())
    pictures = [Image.open(folder / "images" / f"{name}.png") for name in expected["images"]]
    for padding in ("input_ids_padded_with_eot", "input_ids_padded_with_0"):
        reward = load_pickscore(folder / "model", ListedTokens(stored["prompts"], stored[padding]))
        with torch.no_grad():
            yield from pixels(reward, pictures, np.load(folder / "pixels.npz"))
            yield from scores(reward, pictures, expected, "f32", 2e-4)
            reward.network.double()
            yield from scores(reward, pictures, expected, "f64", 1e-7)


def pixels(reward: PickScore, pictures, stored) -> Iterator[Comparison]:
    opened = torch.stack([reward.view.open(p) for p in pictures])
    yield close("crop_u8", (opened * 255).round().permute(0, 2, 3, 1), stored["crop_u8"])
    yield close("norm_stride16", normalise(opened)[..., ::16, ::16], stored["norm_stride16"], atol=1e-6)
    for picture, crop in zip(pictures, stored["crop_u8"]):
        with torch.enable_grad():
            seen = reward.view(as_tensor(picture)[None].requires_grad_()).detach()
        yield close("differentiable", (seen[0] * 255).round().permute(1, 2, 0), crop)
    vectors = torch.nn.functional.normalize(reward.clip.of_pixels(opened), dim=-1)
    yield close("image vectors", vectors, stored["image_embeds_unit_f64"], atol=1e-6)


def scores(reward: PickScore, pictures, expected, what: str, atol: float) -> Iterator[Comparison]:
    rows = [reward.score_pictures(pictures, [Prompt(text)] * len(pictures)) for text in expected["prompts"]]
    found, said = torch.stack(rows), expected[what]
    pairs = torch.stack([found[:, pair] for pair in expected["pairs"]], 1)
    chance = 1e-5 if what == "f32" else atol
    yield close(f"{what} scores", found, said["scores"], atol=atol)
    yield close(f"{what} pair_probs", preference(pairs), said["pair_probs"], atol=chance)
    yield close(f"{what} softmax", preference(found), said["softmax_over_all_images"], atol=chance)
