"""The reward model of imagereward.py, trained on more and more votes, and the scorers that need none."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from tastemaker.evaluation.intervals import bootstrap, bootstrap_mean
from tastemaker.protocols import Reward
from tastemaker.randomness import stream
from tastemaker.records import Interval
from tastemaker.rewards.tiny_clip_scorer import FrozenTowers, HeadConfig, new_on
from tastemaker.workflows.judged import Judged
from tastemaker.workflows.reward_model import Learner, learn
from tastemaker.world.check import WorldCheck

from .simulated_pool import CHUNK, EACH, GENERATED, MEASURED, A, Pool, expected_accuracy, stored

SCORERS = {  # without any vote: like CLIP; a detector asked whether the prompt holds; what pictures look like
    "alignment": lambda: load_reward("alignment"),
    "check": WorldCheck,
    "sharpness": lambda: load_reward("sharpness"),
    "harmony": lambda: load_reward("harmony"),
    "compressibility": lambda: load_reward("compressibility"),
}
PAIRS = len(A)


def config(prompts: int, seed: int) -> Config:
    """Five passes over the votes, at least 200 steps and at most 2,500; a validation set of 150 prompts at most."""
    pairs = prompts * PAIRS
    steps = int(min(2500, max(200, 5 * pairs / 128)))
    return Config(
        steps=steps,
        frozen_share=1.0,
        validation_share=max(0.03, min(0.2, 150 / prompts)),
        test_share=0.0,
        validate_every=max(20, steps // 25),
        seed=seed,
        optimiser=OptimiserConfig(
            learning_rate=5e-4, warmup_steps=20, weight_decay=0.05, cosine_steps=steps, ema_decay=0.98
        ),
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
    """A reward model from one vote on each pair of so many prompts; taken up again where it was left."""
    if (folder / "result.json").is_file():
        return folder

    def start(settings: Config, *_: object) -> Learner:
        shape = HeadConfig(settings.width, settings.depth, settings.members)
        scorer = new_on("", shape, seed)
        scorer.freeze(settings.frozen_share)
        return Learner(scorer, FrozenTowers(scorer), lambda name: read[pool.place(name)])

    pairs = pool.votes(chosen_rows(pool, prompts, seed), seed)
    begun = folder if (folder / "config.yaml").is_file() else None
    learn(Judged(tuple(pairs), pool.picture, pool.ceiling), start, config(prompts, seed), folder, begun)
    return folder


@torch.no_grad()
def judge(pool: Pool, reward: Reward) -> Tensor:
    """(MEASURED, 6) of the measured pictures."""
    found = []
    for row in range(0, MEASURED, 10):
        prompts = [p for p in pool.prompts[row : row + 10] for _ in range(EACH)]
        found.append(reward.score(pool.pictures[row : row + 10].flatten(0, 1).float() / 255, prompts))
    return torch.cat(found).float().view(-1, EACH)


def accuracies(pool: Pool, reward: Reward) -> np.ndarray:
    """(MEASURED,): the share of each measured prompt's votes that the reward foretells."""
    return expected_accuracy(judge(pool, reward), pool.first_preferred(range(MEASURED)))


def best_accuracies(pool: Pool) -> np.ndarray:
    """(MEASURED,): the same of who knows every picture's worth."""
    chances = pool.first_preferred(range(MEASURED))
    return torch.maximum(chances, 1 - chances).mean(1).numpy()


def mean_of(rows: Sequence[np.ndarray]) -> Interval:
    """Over seeds and prompts; prompts are resampled, with every seed's figure."""
    values = np.concatenate(rows)
    return bootstrap_mean(values, np.tile(np.arange(MEASURED), len(rows)))


def share_of(rows: Sequence[np.ndarray], best: np.ndarray) -> Interval:
    """Mean accuracy over the mean ceiling, prompts resampled for both together."""
    values = np.mean(rows, axis=0)

    def statistic(drawn: np.ndarray, which: np.ndarray, count: int) -> np.ndarray:
        ours, theirs = (np.bincount(which, one[drawn], count) for one in (values, best))
        return ours / theirs

    return bootstrap(statistic, np.arange(MEASURED))


def sizes(largest: int, smallest: int = 20) -> list[int]:
    """Numbers of prompts, about three times as many each: 20 prompts are 300 votes, 9,134 are 137,010."""
    steps = max(1, round(math.log(largest / smallest) / math.log(3)))
    return [round(smallest * (largest / smallest) ** (k / steps)) for k in range(steps + 1)]
