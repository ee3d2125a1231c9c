"""HPSv2's preprocessing and score on a tiny open_clip model. Of the resize's two variants ours is antialiased."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close
from listed_tokens import ListedTokens
from PIL import Image
from torch.nn.functional import normalize

from tastemaker.encoders.pixels import as_tensor, normalise
from tastemaker.records import Prompt
from tastemaker.rewards.hpsv2 import HpsV2, load_hpsv2


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    sizes = json.loads((folder / "config.json").read_text())["model_cfg"]
    vision, text = sizes["vision_cfg"], sizes["text_cfg"]
    stored = json.loads((folder / "tokens.json").read_text())
    tokens = ListedTokens(stored["prompts"], stored["tiny_vocab_ids_padded_to_77_with_0"])
    heads = vision["width"] // vision["head_width"], text["heads"]
    reward = load_hpsv2(folder / "weights.safetensors", tokenizer=tokens, heads=heads)
    expected = json.loads((folder / "expected.json").read_text())
    pictures = {name: Image.open(folder / "images" / f"{name}.png") for name in expected["images"]}
    known = {n: pictures[n] for n in expected["images"] if expected["official_status"][n] == "ok"}
    inner = np.load(folder / "intermediate.npz")
    with torch.no_grad():
        yield from pixels(reward, known, inner)
        yield from scores(reward, known, expected, "f32", 2e-6)
        for name in sorted(set(pictures) - set(known)):  # the official code fails on these; ours scores them
            found = reward.score_pictures([pictures[name]], [Prompt(expected["prompts"][0])])
            yield Comparison(f"{name} is scored", 0.0, 0.0, "finite", bool(found.isfinite().all()))
        reward.network.double()
        yield from scores(reward, known, expected, "f64", 1e-7)
        yield from vectors(reward, known, expected["prompts"], inner)


def pixels(reward: HpsV2, pictures, inner) -> Iterator[Comparison]:
    for name, picture in pictures.items():
        opened = reward.view.open(picture)
        said = inner[f"pixels_antialias_true_{name}_stride7"]
        yield close(f"{name} pixels", normalise(opened)[..., ::7, ::7], said, atol=2e-6)
        with torch.enable_grad():
            seen = reward.view(as_tensor(picture)[None].requires_grad_()).detach()
        yield close(f"{name} differentiable", seen[0], opened)


def scores(reward: HpsV2, pictures, expected, what: str, atol: float) -> Iterator[Comparison]:
    for name, picture in pictures.items():
        prompts = [Prompt(text) for text in expected["prompts"]]
        found = reward.score_pictures([picture] * len(prompts), prompts)
        yield close(f"{what} {name}", found, expected["scores"]["antialias_true"][what][name], atol=atol)


def vectors(reward: HpsV2, pictures, prompts, inner) -> Iterator[Comparison]:
    rows = {name: i for i, name in enumerate(inner["names"].tolist())}
    yield close("text vectors", reward.clip.text_vectors(prompts), inner["text_features_f64"], atol=1e-7)
    for name, picture in pictures.items():
        found = normalize(reward.clip.of_pixels(reward.view.open(picture)[None]), dim=-1)[0]
        yield close(f"{name} vector", found, inner["image_features_f64_antialias_true"][rows[name]], atol=1e-7)
