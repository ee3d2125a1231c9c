"""The reward model of imagereward.py, trained on more and more votes, and the scorers that need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from tastemaker import load_reward
from tastemaker.algorithms.optimise import OptimiserConfig
from tastemaker.algorithms.reward_model import Config
from tastemaker.data.pairs import Pair
from tastemaker.evaluation.intervals import bootstrap, bootstrap_mean
from tastemaker.picture_bytes import from_bytes
from tastemaker.protocols import Reward
from tastemaker.randomness import stream
from tastemaker.records import Interval
from tastemaker.rewards.preference import load_scorer
from tastemaker.rewards.tiny_clip_scorer import FrozenTowers, HeadConfig, new_on
from tastemaker.workflows.judged import Judged
from tastemaker.workflows.reward_model import Learner, Start, learn, some_pictures, squares
from tastemaker.world.check import WorldCheck

from .simulated_pool import CHUNK, EACH, GENERATED, A, Pool, expected_accuracy, stored

SCORERS = {  # without any vote: like CLIP; a detector asked whether the prompt holds; what pictures look like
    "alignment": lambda: load_reward("alignment"),
    "check": WorldCheck,
    "sharpness": lambda: load_reward("sharpness"),
    "harmony": lambda: load_reward("harmony"),
    "compressibility": lambda: load_reward("compressibility"),
}
PAIRS = len(A)


def config(prompts: int, seed: int) -> Config:
    """Five passes over the votes, at least 200 steps and at most 2,000; a validation set of 150 prompts at most."""
    steps = int(min(2000, max(200, 5 * prompts * PAIRS / 128)))
    return Config(
        steps=steps,
        members=1,
        width=64,
        depth=1,
        frozen_share=1.0,
        validation_share=min(0.2, 150 / prompts),
        test_share=0.0,
        validate_every=max(20, steps // 20),
        seed=seed,
        optimiser=OptimiserConfig(
            learning_rate=1e-3,
            warmup_steps=50,
            weight_decay=0.05,
            cosine_steps=steps,
            ema_decay=0.98,
        ),
    )


def config_of_towers(prompts: int, seed: int) -> Config:
    """At most half a pass over the votes, by small steps: the second half of the towers' blocks moves as well."""
    settings, steps = config(prompts, seed), min(500, prompts * PAIRS // 128)
    return replace(
        settings,
        steps=steps,
        frozen_share=0.4,
        validate_every=100,
        patience=steps,
        optimiser=replace(settings.optimiser, learning_rate=1.5e-4, cosine_steps=steps, ema_decay=0.97),
    )


def chosen_rows(pool: Pool, prompts: int, seed: int) -> list[int]:
    """Which prompts are voted on: those with the generator's pictures first, in the seed's order."""
    rows = stream(seed, purpose="prompts to vote on").permutation(pool.unseen()).tolist()
    return sorted(rows, key=lambda row: row >= GENERATED)[:prompts]


def read_pictures(pool: Pool, cache: Path) -> Tensor:
    """(P, 6, K) float16: what the frozen towers see of every picture, once for all trainings."""
    frozen, starts = FrozenTowers(new_on("", HeadConfig(), 0)), range(0, len(pool.prompts), CHUNK)
    shown = track(starts, "pictures through the frozen towers", console=Console(stderr=True))

    def read(first: int) -> dict[str, Tensor]:
        pictures = pool.pictures[first : first + CHUNK]
        rows = [frozen.read(part.float() / 255) for part in pictures.flatten(0, 1).split(60)]
        return {"rows": torch.cat(rows).unflatten(0, (-1, EACH))}

    return torch.cat([stored(cache / f"rows-{i:05d}", partial(read, i))["rows"] for i in shown])


def train(pool: Pool, read: Tensor, prompts: int, seed: int, folder: Path) -> Path:
    """A reward model from one vote on each pair of so many prompts, with the towers as they are."""

    def start(settings: Config, judged: Judged, parts: Mapping[str, list[Pair]]) -> Learner:
        shape = HeadConfig(settings.width, settings.depth, settings.members)
        scorer = new_on("", shape, seed)
        scorer.freeze(settings.frozen_share)
        scorer.standardise(some_pictures(judged, parts["train"]))
        return Learner(scorer, FrozenTowers(scorer), lambda name: read[pool.place(name)])

    return carried_out(pool, prompts, seed, start, config(prompts, seed), folder)


def train_towers(pool: Pool, begun: Path, prompts: int, seed: int, folder: Path) -> Path:
    """The same votes again: the model that `train` wrote in `begun` goes on, with its towers."""

    def start(settings: Config, judged: Judged, parts: Mapping[str, list[Pair]]) -> Learner:
        scorer = load_scorer(begun)
        scorer.freeze(settings.frozen_share)
        scorer.network.heads.requires_grad_(True)
        return Learner(scorer, scorer, squares(judged.pictures, scorer.read))

    return carried_out(pool, prompts, seed, start, config_of_towers(prompts, seed), folder)


def carried_out(pool: Pool, prompts: int, seed: int, start: Start, settings: Config, folder: Path) -> Path:
    """Taken up again where it was left."""
    if not (folder / "result.json").is_file():
        pairs = pool.votes(chosen_rows(pool, prompts, seed), seed)
        begun = folder if (folder / "config.yaml").is_file() else None
        learn(Judged(tuple(pairs), pool.picture, pool.ceiling), start, settings, folder, begun)
    return folder


@torch.no_grad()
def judge(pool: Pool, reward: Reward, rows: range) -> Tensor:
    """(P, 6) of measured pictures."""
    found = []
    for first in range(rows.start, rows.stop, 10):
        prompts = [p for p in pool.prompts[first : first + 10] for _ in range(EACH)]
        found.append(reward.score(from_bytes(pool.pictures[first : first + 10].flatten(0, 1)), prompts))
    return torch.cat(found).float().view(-1, EACH)


def accuracies(pool: Pool, reward: Reward, rows: range) -> np.ndarray:
    """(P,): the share of each measured prompt's votes that the reward foretells."""
    return expected_accuracy(judge(pool, reward, rows), pool.first_preferred(rows))


def best_accuracies(pool: Pool, rows: range) -> np.ndarray:
    """(P,): the same of who knows every picture's worth."""
    chances = pool.first_preferred(rows)
    return torch.maximum(chances, 1 - chances).mean(1).numpy()


def mean_of(rows: Sequence[np.ndarray]) -> Interval:
    """Over seeds and prompts; prompts are resampled, with every seed's figure."""
    values = np.concatenate(rows)
    return bootstrap_mean(values, np.tile(np.arange(len(rows[0])), len(rows)))


def share_of(rows: Sequence[np.ndarray], best: np.ndarray) -> Interval:
    """Mean accuracy over the mean ceiling, prompts resampled for both together."""
    values = np.mean(rows, axis=0)

    def statistic(drawn: np.ndarray, which: np.ndarray, count: int) -> np.ndarray:
        ours, theirs = (np.bincount(which, one[drawn], count) for one in (values, best))
        return ours / theirs

    return bootstrap(statistic, np.arange(len(best)))
