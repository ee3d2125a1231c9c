"""The tuning of imagereward.py: ReFL and four baselines follow the same reward model, and raters compare them.

Each method has its own defaults, but for fewer looks on the way, a reward weight of DRaFT at which its pictures stay
about as near to clean drawings as ReFL's, and, where pictures are drawn first, about as many of them as ReFL draws.
A rater's win rate is over the base on the same prompts and seeds, the chance that a rater takes the tuned picture,
which is known here. Prompts of the comparison are not among those of the votes unless they name a single object, of
which there are 18.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tastemaker import load_generator
from tastemaker.encoders.protocol import extract
from tastemaker.evaluation.diversity import per_prompt
from tastemaker.evaluation.frechet import frechet_distance_of_features
from tastemaker.evaluation.intervals import draw_rows
from tastemaker.picture_bytes import as_bytes, from_bytes
from tastemaker.records import Interval, Prompt
from tastemaker.sampling import sample_batches
from tastemaker.workflows import refl, tune
from tastemaker.workflows.load import load_encoder
from tastemaker.workflows.sample import crossed
from tastemaker.workflows.simulated_votes import utilities
from tastemaker.world.check import WorldCheck
from tastemaker.world.grammar import evaluation_prompts
from tastemaker.world.raters import Taste, choice_probabilities
from tastemaker.world.scenes import compose, draw

from .simulated_pool import stored

METHODS: Mapping[str, Callable[..., Any]] = {
    "refl": refl.train_refl,
    "draft": tune.train_draft,
    "raft": tune.train_raft,
    "reward_weighted": tune.train_reward_weighted,
    "sft": tune.train_sft,
}
SETTINGS = {  # ReFL draws 120 x 32 pictures, each up to its last step or the one before
    "draft": ("steps=120", "reward_weight=0.01", "optimiser.learning_rate=0.0001"),
    "raft": ("drawn_prompts=48", "steps=120"),
    "reward_weighted": ("drawn_prompts=120", "steps=120"),
    "sft": ("steps=120",),
}
SPACES = ("tiny-clip", "efficientnet-lite0")
PER_TASK, SEEDS_EACH = 17, 2


@dataclass(frozen=True)
class Drawn:
    """What one generator made of the compared prompts and seeds. B pictures."""

    worth: Tensor  # (B,) float64, raters' utility
    right: Tensor  # (B,) 1 where the picture shows its prompt, by detector-b
    features: Mapping[str, np.ndarray]  # space -> (B, D)


def compared() -> tuple[list[Prompt], list[int]]:
    return crossed(evaluation_prompts(PER_TASK, seed=3), range(SEEDS_EACH))


def tuned(method: str, reward: Path, seed: int, folder: Path) -> dict[str, Any]:
    """Train, or go on where it was left; the run's result."""
    if not (folder / "result.json").is_file():
        said = [f"reward=preference:{reward}", f"seed={seed}", "watch.every=60", "watch.pictures=32"]
        begun = folder if (folder / "config.yaml").is_file() else None
        METHODS[method](None, [*said, *SETTINGS.get(method, ())], folder, begun)
    return json.loads((folder / "result.json").read_text())


def drawn(model: str, file: Path) -> Drawn:
    """The compared pictures of a model, kept as a file; through 8 bits, as a file would be."""
    prompts, seeds = compared()

    def make() -> dict[str, Tensor]:
        parts = sample_batches(load_generator(model), prompts, seeds, batch=64)
        return {"images": torch.stack([as_bytes(image) for part in parts for image in part])}

    images = stored(file, make)["images"]
    pictures = from_bytes(images)
    worth = utilities(images.unbind(), prompts, Taste())
    with torch.no_grad():
        features = {space: np.asarray(extract(load_encoder(space), pictures.split(64))) for space in SPACES}
    return Drawn(worth.double(), WorldCheck().score(pictures, prompts), features)


def reference() -> dict[str, np.ndarray]:
    """Features of clean drawings of the compared prompts, SEEDS_EACH of each."""
    prompts, _ = compared()
    clean = [torch.from_numpy(draw(compose(p.spec or {}, 10**6 + k))).permute(2, 0, 1) for k, p in enumerate(prompts)]
    with torch.no_grad():
        return {s: np.asarray(extract(load_encoder(s), torch.stack(clean).split(64))) for s in SPACES}


def wins(ours: Drawn, base: Drawn, taste: Taste) -> np.ndarray:
    """(B,): the chance that a rater takes ours; equal pictures are 0.5."""
    return choice_probabilities(ours.worth, base.worth, taste)[:, 0].numpy()


def diversity(one: Drawn) -> np.ndarray:
    """(P,): mean cosine distance between the pictures of a prompt, in EfficientNet-lite0."""
    prompts, _ = compared()
    return per_prompt(one.features["efficientnet-lite0"], [p.text for p in prompts])


def frechet_change(
    ours: Sequence[Drawn], base: Drawn, real: Mapping[str, np.ndarray], space: str, resamples: int = 50
) -> Interval:
    """Frechet distance to clean drawings, ours minus base's, mean over seeds; prompts are resampled for all alike."""
    groups = np.unique([p.text for p in compared()[0]], return_inverse=True)[1]

    def change(rows: np.ndarray) -> float:
        distances = [frechet_distance_of_features(real[space], d.features[space][rows]) for d in (*ours, base)]
        return float(np.mean(distances[:-1]) - distances[-1])

    found = []
    for rows, which, count in draw_rows(groups, resamples, 0):
        found += [change(rows[which == k]) for k in range(count)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(change(np.arange(len(groups))), float(low), float(high), len(groups))
