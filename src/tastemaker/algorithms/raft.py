"""RAFT: reward-ranked fine-tuning, in rounds (Dong et al. 2023, arXiv 2304.06767, Algorithm 1).

A round draws K pictures for each of some prompts with the generator as it is by then, keeps the best of each prompt,
and fine-tunes on those:

    x_k ~ p_theta(. | c),  k = 1 .. K;     L = E_c[ L_pre(x_best, c) ],  best = argmax_k r(x_k, c)

ImageReward's baseline (arXiv 2304.05977, Appendix E) draws 10 pictures of each of 10,000 prompts a round, and finds
that later rounds get worse: the generator is trained on less and less varied pictures of its own.
`pretraining_weight` holds against that; 0 is the published form. Needs of the generator: a trajectory, `codec`,
`draw`, `loss`. Needs no gradient of the reward. Letters: P prompts of a round, K samples per prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Batches
from ..errors import TastemakerError, expect
from ..protocols import Reward
from ..randomness import mix
from ..ranks import own
from ..records import Prompt, StepRecord
from .anchor import anchored, captioned_data, captioned_loss
from .optimise import TrainingState
from .pretrain import Captioned, draw_seeds
from .rollout import ScoredPictures, distinct, draw_scored
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """RAFT: how many rounds, how many pictures in each, how long."""

    rounds: int = 3
    """how often the generator draws anew"""
    steps: int = 180
    """optimiser steps, over all rounds"""
    batch_size: int = 32
    """kept pictures a step; as many captioned pictures for the pretraining loss"""
    drawn_prompts: int = 128
    """P: prompts of a round"""
    per_prompt: int = 8
    """K: pictures of each, of which one is kept"""
    pretraining_weight: float = 0.0
    """of the loss on captioned pictures; 0 is the published form"""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(1 <= self.rounds <= self.steps, "rounds of at least 1 and at most steps", self.rounds)
        expect(
            self.drawn_prompts >= 1 and self.per_prompt >= 1,
            "drawn_prompts and per_prompt of at least 1",
            f"{self.drawn_prompts}, {self.per_prompt}",
        )


@dataclass
class Kept:
    """The pictures of the round under way; a part of the checkpoints, since the weights that drew them are gone."""

    round: int = -1
    pictures: ScoredPictures | None = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; of the prompts their words."""
        if self.pictures is None:
            return {"round": self.round}
        texts = [p.text for p in self.pictures.prompts]
        return {"round": self.round, "images": self.pictures.images, "scores": self.pictures.scores, "texts": texts}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.round = saved["round"]
        if "images" in saved:
            prompts = tuple(Prompt(text) for text in saved["texts"])
            self.pictures = ScoredPictures(saved["images"], prompts, saved["scores"])


def best_of(scores: Tensor) -> Tensor:
    """(P, K) -> (P,) int64: the best of each prompt, the first of equals; -1 where all are NaN."""
    best = torch.where(scores.isnan(), -torch.inf, scores).argmax(1)
    return torch.where(scores.isnan().all(1), -1, best)


def round_of(step: int, config: Config) -> int:
    """Which round a step belongs to: rounds are equally long, give or take a step."""
    return step * config.rounds // config.steps


def best_pictures(
    generator: Any, reward: Reward, prompts: Sequence[Prompt], config: Config, number: int
) -> ScoredPictures:
    """The best of K own pictures for each of this round's prompts, which are drawn without replacement.

    A prompt without any score is left out. Raises TastemakerError where that is all of them.
    """
    chosen, kept = distinct(prompts, config.drawn_prompts, config.seed, number), []
    at_once = max(1, 64 // config.per_prompt)  # only the best are held in memory
    for first in range(0, len(chosen), at_once):
        own = chosen[first : first + at_once]
        drawn = draw_scored(generator, reward, own, config.per_prompt, mix(config.seed, 2, number, first))
        best = best_of(drawn.scores.reshape(len(own), config.per_prompt))
        places = torch.arange(len(own)) * config.per_prompt + best
        kept.append(drawn.take(places[best >= 0]))
    if not sum(map(len, kept)):
        raise TastemakerError(f"'{reward.name}' gave no score for any picture of round {number + 1}: nothing to keep")
    prompts_kept = tuple(p for part in kept for p in part.prompts)
    return ScoredPictures(torch.cat([p.images for p in kept]), prompts_kept, torch.cat([p.scores for p in kept]))


def train(
    generator: Any,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    kept: Kept,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`, with the pictures in `kept` where its round is not over.

    batches: captioned pictures for the pretraining loss, or None. A round draws with the averaged weights, those that
    a run keeps.
    """
    if not prompts:
        raise TastemakerError("no prompts to train on; expected at least one")
    generator.network.eval()
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        number = round_of(state.step, config)
        figures: dict[str, float] = {"round": number + 1}
        if kept.pictures is None or kept.round != number:
            with state.ema_weights():
                kept.pictures = best_pictures(generator, reward, prompts, config, number)
            kept.round = number
            figures |= {"kept_reward": float(kept.pictures.scores.mean()), "kept_pictures": len(kept.pictures)}
        order = Batches(kept.pictures, config.batch_size, mix(config.seed, number))
        images, captions = order.at(state.step)
        seeds = own(draw_seeds(mix(config.seed, 1), state.step, config.batch_size))
        loss = captioned_loss(generator, images, captions, seeds).mean()
        figures |= {"kept_loss": float(loss.detach())}
        loss, more = anchored(loss, generator, data, config.pretraining_weight, seeds)
        figures |= more | state.update(loss)
        yield StepRecord(state.step, figures)
