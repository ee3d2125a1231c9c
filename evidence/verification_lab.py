"""What the parts of verification.py share: the generator, the prompts, records of finished runs, work seed by seed.

Every record says for each prompt whether the picture that was kept is right by the world's check, `detector-b`, whom
nobody else asks: labels come from `detector-a`. Letters: S seeds, P prompts, N candidates of each.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.algorithms import dpo, judge
from tastemaker.algorithms.optimise import OptimiserConfig
from tastemaker.allocator import keep_freed_memory
from tastemaker.devices import best_device, place
from tastemaker.encoders.words import Vocabulary
from tastemaker.evaluation import geneval
from tastemaker.evaluation.intervals import bootstrap_mean
from tastemaker.generators.tiny_masked import KIND, TinyMasked
from tastemaker.generators.token_network import TokenNetworkConfig
from tastemaker.generators.unmasking import times_of
from tastemaker.generators.vq import Tokenizer, TokenizerConfig
from tastemaker.protocols import Reward
from tastemaker.randomness import mix
from tastemaker.records import Interval, Prompt
from tastemaker.rewards.table import load_rewards
from tastemaker.weights import shipped
from tastemaker.workflows.configs import plain
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.versions import weight_hash
from tastemaker.world.check import LABELS, FactCheck
from tastemaker.world.grammar import evaluation_prompts, even_prompts, vocabulary

from .records import recorded

NAME = "verification"
COMMAND = "python -m evidence.verification"
MODEL = "tiny-masked"
WORLD = 61_000  # seed of training prompts and pictures
HELD_OUT = 0.15  # share of each task's training prompts that judges are validated on


@dataclass(frozen=True)
class Scale:
    """per_task: prompts of each of six tasks that are evaluated; n: N; counts: of the curves, the last of them N;
    sampling_steps, schedule: of tiny-masked, None steps for its own plan; with equal shares of tokens a step, not the
    cosine's few at first, previews tell earlier what comes. gpu_batch, batch: pictures at once with and without a
    GPU. Of judges: judged prompts with paths of each, process_paths for the PRM, and steps. Of each stage of DPO:
    pairs from so many prompts with so many pictures of each, and steps. similar: paths of a prompt whose likeness is
    measured, of `similar_per_task` prompts of each task."""

    seeds: tuple[int, ...] = (0, 1, 2)
    per_task: int = 12
    counts: tuple[int, ...] = (1, 4, 10, 20)
    sampling_steps: int | None = 8
    schedule: str = "linear"
    gpu_batch: int = 640
    batch: int = 20
    judged: int = 240
    paths: int = 8
    process_paths: int = 3
    rollouts: int = 3
    judge_steps: int = 400
    judge_batch: int = 96
    paired: int = 480
    per_prompt: int = 6
    dpo_steps: int = 96
    dpo_batch: int = 32
    similar: int = 8
    similar_per_task: int = 4

    @property
    def n(self) -> int:
        return self.counts[-1]


QUICK = Scale(
    (0,), per_task=2, counts=(1, 2), sampling_steps=4, judged=12, paths=2, process_paths=2, rollouts=2, judge_steps=4,
    judge_batch=8, paired=12, per_prompt=4, dpo_steps=4, dpo_batch=4, similar=3, similar_per_task=1,
)  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """cache: trained models and pictures. partial: a record for each finished run. model: whom it is about."""

    cache: Path
    partial: Path
    scale: Scale = Scale()
    model: str = MODEL

    @property
    def seeds_of_ablations(self) -> tuple[int, ...]:
        """The same, whichever seeds are run now."""
        return Scale.seeds[:1]

    @property
    def stands_in(self) -> bool:
        """No tiny-masked is there, and this is a quick run: one with fresh weights takes its place."""
        return self.model == MODEL and not shipped(KIND).is_file() and self.scale == QUICK

    @property
    def at_once(self) -> int:
        return self.scale.gpu_batch if best_device().type == "cuda" else self.scale.batch

    def generator(self) -> Any:
        """Loaded anew, so that it may be tuned."""
        made: Any = fresh() if self.stands_in else load_generator(self.model)
        if self.scale.sampling_steps is not None:
            times = times_of(self.scale.schedule, self.scale.sampling_steps)
            made.plan = replace(made.plan, times=times)
        return place(made)

    @cached_property
    def weights(self) -> str:
        """What the records of other weights are told apart by."""
        return weight_hash(self.generator().parts)[:16]

    @property
    def told_scale(self) -> dict[str, Any]:
        """In every record, but for what changes no run's figures."""
        return plain(replace(self.scale, seeds=(), gpu_batch=0, batch=0))

    @cached_property
    def made(self) -> Path:
        """Where what is trained on this model lies."""
        folder = self.cache / self.weights
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def labels(self) -> Reward:
        """How much of the prompt is right, which is known of training pictures. A stand-in draws nothing that is."""
        return load_rewards(["alignment"])[0] if self.stands_in else FactCheck(LABELS)

    # prompts

    @cached_property
    def prompts(self) -> list[Prompt]:
        """(P,) evaluated, the same for every seed."""
        return evaluation_prompts(self.scale.per_task)

    @cached_property
    def every_prompt(self) -> list[Prompt]:
        """(S P,): of the seeds one after the other."""
        return self.prompts * len(self.scale.seeds)

    def picture_seeds(self, seed: int) -> list[int]:
        return [mix(WORLD, 1, seed, k) for k in range(len(self.prompts))]

    def training_prompts(self, seed: int, count: int) -> tuple[list[Prompt], list[Prompt]]:
        """To train on and to validate on; none is evaluated but for the 18 single objects that there are."""
        return even_prompts(count, mix(WORLD, 2, seed), self.prompts, HELD_OUT)

    # settings of the trainings

    def judge_config(self, recipe: str, seed: int) -> judge.Config:
        scale = self.scale
        steps, paths = scale.judge_steps, scale.process_paths if recipe == "prm" else scale.paths
        optimiser = OptimiserConfig(
            5e-4, weight_decay=0.05, warmup_steps=min(50, steps // 4), cosine_steps=steps, ema_decay=0.99
        )
        return judge.Config(
            model=self.model, recipe=recipe, prompts=scale.judged, per_prompt=paths, rollouts=scale.rollouts,
            steps=steps, batch_size=scale.judge_batch, patience=4, seed=seed, optimiser=optimiser,
        )  # fmt: skip

    def dpo_config(self, seed: int, rounds: int, least_difference: float = 0.0) -> dpo.Config:
        scale = self.scale
        return dpo.Config(
            model=self.model, rounds=min(rounds, scale.dpo_steps), steps=scale.dpo_steps, batch_size=scale.dpo_batch,
            drawn_prompts=scale.paired // rounds, per_prompt=scale.per_prompt, draws=1, seed=seed,
            pairs_per_prompt=scale.per_prompt // 2, least_difference=least_difference,
        )  # fmt: skip

    # records

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a finished run of this model and scale, or made now."""
        told = {"model": self.weights, "scale": self.told_scale}
        return recorded(self.partial / f"{NAME}-{name}.json", name, told, make)


def fresh() -> TinyMasked:
    """A generator that has learned nothing, of pictures of 64 x 64."""
    tokenizer = Tokenizer.new(TokenizerConfig(size=64, factor=8, bits=6, channels=8))
    shape = TokenNetworkConfig(side=8, bits=6, width=32, depth=1, heads=1)
    made = TinyMasked.new(shape, tokenizer, Vocabulary(vocabulary(), 12))
    made.parts.eval()
    return made


def over_seeds(lab: Lab, work: Callable[[Lab, int], Any], seeds: Sequence[int] | None = None) -> None:
    """work(lab, seed) of every seed. With a GPU, which one seed does not fill, they go side by side, each in a
    process of its own: what is made has to lie in the lab's folders."""
    seeds = lab.scale.seeds if seeds is None else seeds
    if len(seeds) == 1 or best_device().type == "cpu":
        for seed in seeds:
            work(lab, seed)
        return
    threads = max(1, (os.cpu_count() or 1) // len(seeds))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(seeds), spawn, begun, (threads,)) as pool:
        list(pool.map(partial(work, replace(lab)), seeds))


def begun(threads: int) -> None:
    """What a process of a seed does first."""
    keep_freed_memory()
    torch.set_num_threads(threads)


def over_tasks(prompts: Sequence[Prompt], values: NDArray) -> float:
    """The mean over tasks of the mean in each; prompts, values (B,)."""
    tasks, _ = geneval.task_codes(prompts)
    return float(np.mean([values[tasks == task].mean() for task in range(tasks.max() + 1)]))


def measured(prompts: Sequence[Prompt], values: NDArray) -> tuple[Interval, dict[str, Interval]]:
    """The mean over tasks and the mean of each; prompts, values (B,): right or wrong, shares, or differences of the
    two. Prompts are resampled."""
    tasks, groups = geneval.task_codes(prompts)
    own = {name: tasks == task for name, task in geneval.names(prompts)}
    by_task = {name: bootstrap_mean(values[rows], groups[rows]) for name, rows in own.items()}
    return geneval.over_tasks(values, tasks, groups), by_task


def right(records: Sequence[dict[str, Any]], key: str) -> NDArray:
    """(S P,) float64 of the records of every seed: 1 where the picture that was kept is right, a share where none
    was chosen."""
    return np.concatenate([np.array(one["right"][key], np.float64) for one in records])
