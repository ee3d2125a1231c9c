"""`tastemaker train draft|sft|reward-weighted|raft`: each method meets its generator, its pictures and its run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track as progress
from torch import Tensor
from torch.utils.data import Subset

from ..algorithms import draft, raft, reward_weighted, sft
from ..algorithms.optimise import TrainingState
from ..algorithms.rollout import ScoredPictures, distinct, draw_scored, prompt_sets
from ..data.batches import Batches, collate
from ..errors import TastemakerError
from ..protocols import Reward
from ..randomness import mix
from ..records import Prompt, StepRecord
from ..rewards.combine import zscore
from ..sampling import score_checked
from ..world.dataset import noisy_world
from .runs import Run, open_run
from .train import readable
from .tuning import (
    beginning,
    carry_out,
    picture_side,
    pictures,
    prepared,
    speaks_of_the_world,
    standardised,
    stored,
)


def train_draft(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """DRaFT-K; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(draft.Config, config_path, overrides, resume, track)
    draft.require_gradient(bench.reward)
    config = standardised(config, bench)
    run = open_run(config, out, resume, beginning(bench.generator))
    batches = pictures(bench.generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return draft.train(bench.generator, bench.reward, bench.prompts, batches, config, state)

    return carry_out(train, bench, config, run, track)


def train_sft(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Dataset filtering; data: the captioned pictures to choose from, in place of the noisy world."""
    config, bench = prepared(sft.Config, config_path, overrides, resume, track)
    generator, reward = bench.generator, bench.reward
    dataset = to_be_filtered(generator, config, data)
    run = open_run(config, out, resume, beginning(generator))
    scores, sets = score_data(run.folder / "scores.safetensors", reward, dataset)
    rows = sft.top_share(scores, sft.together(sets), config.share)
    print(f"{len(rows)} of {len(dataset)} pictures are kept, by {reward.name}")
    kept = Batches(Subset(dataset, rows.tolist()), config.batch_size, config.seed)
    before = Batches(dataset, config.batch_size, config.seed + 1) if config.pretraining_weight else None
    return carry_out(lambda state: sft.train(generator, kept, before, config, state), bench, config, run, track)


def train_reward_weighted(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Reward-weighted regression on own pictures; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(reward_weighted.Config, config_path, overrides, resume, track)
    generator, prompts, reward = bench.generator, bench.prompts, bench.reward
    run = open_run(config, out, resume, beginning(generator))
    own = own_pictures(run.folder / "drawn.safetensors", generator, reward, prompts, config)
    standard = zscore(own.scores[:, None])[:, 0]
    weights = reward_weighted.exponential_weights(standard, config.beta, prompt_sets(own.prompts))
    drawn, batches = Batches(own, config.batch_size, config.seed), pictures(generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return reward_weighted.train(generator, drawn, weights, batches, config, state)

    return carry_out(train, bench, config, run, track)


def train_raft(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """RAFT; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(raft.Config, config_path, overrides, resume, track)
    run = open_run(config, out, resume, beginning(bench.generator))
    batches, kept = pictures(bench.generator, config, data), raft.Kept()

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return raft.train(bench.generator, bench.reward, bench.prompts, batches, config, state, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def to_be_filtered(generator: Any, config: sft.Config, data: Path | None) -> Any:
    """One's own pictures that can be read, or some of the noisy world for a generator that speaks its words."""
    if data is not None:
        return readable(Path(data), picture_side(generator))
    if not speaks_of_the_world(generator):
        raise TastemakerError(
            f"'{config.model}' does not speak of the embedded world: give captioned pictures to choose from, --data"
        )
    return replace(noisy_world(config.seed + 1, picture_side(generator)), length=config.pictures)


def score_data(path: Path, reward: Reward, dataset: Any, batch: int = 64) -> tuple[Tensor, Tensor]:
    """(N,) scores of a data set's pictures with their own words, (N,) equal where two share them; kept in a file."""

    def judge() -> dict[str, Tensor]:
        scores, prompts = [], []
        for first in progress(range(0, len(dataset), batch), "scoring", console=Console(stderr=True)):
            images, words = collate([dataset[i] for i in range(first, min(first + batch, len(dataset)))])
            prompts += words
            scores.append(score_checked(reward, images, words).cpu())
        return {"scores": torch.cat(scores), "sets": prompt_sets(prompts)}

    found = stored(path, judge)
    return found["scores"], found["sets"]


def own_pictures(
    path: Path, generator: Any, reward: Reward, prompts: Sequence[Prompt], config: reward_weighted.Config
) -> ScoredPictures:
    """`per_prompt` pictures of `drawn_prompts` prompts by the generator as it is, kept in a file."""
    chosen = distinct(prompts, config.drawn_prompts, config.seed)

    def draw() -> dict[str, Tensor]:
        print(f"drawing {len(chosen) * config.per_prompt} pictures to learn from")
        made = draw_scored(generator, reward, chosen, config.per_prompt, mix(config.seed, 3))
        return {"images": made.images, "scores": made.scores}

    found = stored(path, draw)
    words = tuple(p for p in chosen for _ in range(config.per_prompt))
    return ScoredPictures(found["images"], words, found["scores"])
