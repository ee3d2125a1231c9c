"""Where the parts of drl.py keep their runs and pictures, and the settings that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker import load_generator
from tastemaker.algorithms import drl
from tastemaker.algorithms.discriminator import Config as DiscriminatorConfig
from tastemaker.algorithms.memoryless import even_times
from tastemaker.algorithms.optimise import OptimiserConfig
from tastemaker.data.batches import Dataset
from tastemaker.generators.samplers import heun
from tastemaker.protocols import Plan, Reward
from tastemaker.records import Prompt
from tastemaker.rewards.discriminator import Discriminator
from tastemaker.workflows.configs import plain
from tastemaker.world.dataset import clean_world

from . import drl_training as training
from .drl_distance import Reference, beside_of, figures_of, left_out
from .drl_pictures import REAL, SPACES, TRAINED, Drawn, clean_drawings, compared, drawn, trained_on
from .records import recorded

NAME = "drl"
COMMAND = "python -m evidence.drl"
MODEL = "tiny-flow"
PRESETS = {"theory": (1.0, 0.0), "default": (10.0, 1e-5)}  # the paper's: lambda, weight of R1
HEUN_STEPS = (
    12  # 23 evaluations; tiny-flow's own 8 of Euler end with one from t = 0.7, which hides what was learned later
)
LOOKS = 4  # copies of a picture that a discriminator's logit is a mean over
OPTIMISER = OptimiserConfig(learning_rate=3e-4, warmup_steps=5, max_grad_norm=float("inf"), ema_decay=0.9)


@dataclass(frozen=True)
class Scale:
    """How large everything is. count: N pictures that are compared; pairs: of a real and a generated picture that a
    discriminator learns from; steps of a head, of a DRL run (in whole rounds), of one that
    explores, and of pretraining."""

    seeds: tuple[int, ...] = (0, 1, 2)
    count: int = 512
    pairs: int = 1024
    head_steps: int = 200
    steps: int = 192
    short: int = 48
    buffer: int = 128
    batch_size: int = 32
    pretraining: int = 600


QUICK = Scale((0,), count=96, pairs=128, head_steps=20, steps=4, short=4, buffer=16, batch_size=16, pretraining=60)


@dataclass(frozen=True)
class Lab:
    """cache: runs and pictures. partial: a record of each finished run, from which alone rows are made."""

    cache: Path
    partial: Path
    scale: Scale = Scale()

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.scale.seeds

    @property
    def count(self) -> int:
        return self.scale.count

    @cached_property
    def prompts(self) -> Sequence[Prompt]:
        return compared(self.count)

    @cached_property
    def texts(self) -> list[str]:
        return [prompt.text for prompt in self.prompts]

    @cached_property
    def clean(self) -> Drawn:
        """Clean drawings as tiny-flow's frozen decoder can show them: what lies beyond it no training of the flow can
        reach."""
        return clean_drawings(self.cache / "drawn-clean", self.count, through(generator()))

    @cached_property
    def references(self) -> dict[str, Reference]:
        return {space: Reference.of(self.clean, space) for space in SPACES}

    @cached_property
    def raw_references(self) -> dict[str, Reference]:
        """Of clean drawings as they are, told beside the others."""
        raw = clean_drawings(self.cache / "drawn-raw", self.count)
        return {space: Reference.of(raw, space) for space in SPACES}

    @cached_property
    def base(self) -> Drawn:
        return drawn(self.cache / "drawn-base", generator, self.prompts, scored=True)

    def training_prompts(self, seed: int) -> list[Prompt]:
        return trained_on(self.count, seed)

    def real(self, seed: int) -> Dataset:
        """Clean drawings that a discriminator learns from; none of them is measured on."""
        return replace(clean_world(seed + 1), length=self.scale.pairs)

    def discriminator(self, r1: float, seed: int, looks: int = LOOKS) -> Discriminator:
        """Of tiny-flow's pictures, for a weight of R1. Those of one seed share their pictures."""
        end = "" if looks else "-plain"
        folder, pairs = self.cache / f"discriminator-{r1:.0e}-{seed}{end}", self.cache / f"pairs-{seed}{end}"
        return self.discriminator_of(generator(), r1, seed, folder, pairs, looks)

    def discriminator_of(
        self, made: Any, r1: float, seed: int, folder: Path, pairs: Path, looks: int = LOOKS
    ) -> Discriminator:
        """The step size is the paper's: where real and generated pictures can be told apart without error, a larger
        one lets the logit grow until its unit means nothing."""
        config = DiscriminatorConfig(
            encoder=TRAINED,
            world="clean",
            pictures=self.scale.pairs,
            r1=r1,
            r1_pictures=4,
            real_through_decoder=True,
            looks=looks,
            steps=self.scale.head_steps,
            batch_size=256,
            seed=seed,
            optimiser=OptimiserConfig(learning_rate=1e-4, betas=(0.9, 0.999), max_grad_norm=float("inf")),
        )
        return training.discriminator(made, self.real(seed), config, folder, pairs)

    def config(self, strength: float, seed: int = 0, steps: int | None = None) -> drl.Config:
        """Of every DRL run. steps: None for the scale's."""
        steps = steps or self.scale.steps
        return drl.Config(
            strength=strength,
            seed=seed,
            steps=steps,
            buffer=self.scale.buffer,
            batch_size=self.scale.batch_size,
            epochs=4,
            integration_steps=16,
            time_share=0.25,
            first_time=0.3,
            weighting="velocity",
            adjoint_cut=2.0,
            rows_at_once=16,
            optimiser=replace(OPTIMISER, cosine_steps=max(steps, OPTIMISER.warmup_steps + 1)),
        )

    def drl(
        self,
        name: str,
        reward: Callable[[], Reward],
        strength: float,
        seed: int = 0,
        start: Callable[[], Any] | None = None,
        steps: int | None = None,
    ) -> None:
        """DRL on tiny-flow, or on what `start` gives; nothing where the run is over and its weights are there."""
        if (self.cache / name / training.TUNED).is_file():
            return
        made, config = (start or generator)(), self.config(strength, seed, steps)
        loop = training.drl_loop(made, reward(), self.training_prompts(seed), config)
        training.carried_out(loop, made, config, self.cache / name)

    def tuned(self, name: str, scored: bool = False) -> Drawn:
        """What a run of tiny-flow that is over draws. scored: with rewards and looks."""
        file = self.cache / f"drawn-{name}"
        return drawn(file, lambda: training.tuned(generator(), self.cache / name), self.prompts, scored)

    # records

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of a finished run of this scale, or made now."""
        told = {"scale": plain(replace(self.scale, seeds=()))}
        return recorded(self.partial / f"{NAME}-{name}.json", name, told, make)

    @cached_property
    def sets(self) -> list[NDArray]:
        """J: rows of the compared pictures."""
        return left_out(self.texts)

    def base_record(self) -> dict[str, Any]:
        return self.once("base", lambda: self.about(self.base))

    def clean_record(self) -> dict[str, Any]:
        """Of the drawings of the floor, and how clean ones look."""

        def make() -> dict[str, Any]:
            looks = {name: float(values[REAL * self.count :].mean()) for name, values in self.clean.looks.items()}
            return {"spaces": self.in_spaces({name: r.floor for name, r in self.references.items()}), "looks": looks}

        return self.once("clean", make)

    def about(self, made: Drawn) -> dict[str, Any]:
        """What one run's pictures are like: figures (J,) of each space, score and look, and what stands beside."""
        features = {name: values.numpy() for name, values in made.features.items()}
        means = {
            kind: {name: [float(values[rows].mean()) for rows in self.sets] for name, values in found.items()}
            for kind, found in (("scores", made.scores), ("looks", made.looks))
            if found
        }
        return {"spaces": self.in_spaces(features), **means}

    def in_spaces(
        self, features: Mapping[str, NDArray], references: Mapping[str, Reference] | None = None
    ) -> dict[str, Any]:
        """Space -> figures (J,) of features (N, D) by space."""
        found: dict[str, Any] = {}
        for space, reference in (references or self.references).items():
            own = features[space]
            found[space] = figures_of(own, reference, self.sets) | {"beside": beside_of(own, reference)}
            if references is None:
                found[space]["beside"]["to_drawings_as_they_are"] = self.raw_references[space].distance(own)
        return found


def figure(record: Mapping[str, Any], *names: str) -> NDArray:
    """(J,) out of a record."""
    found: Any = record
    for name in names:
        found = found[name]
    return np.array(found, np.float64)


def through(made: Any) -> Callable[[Tensor], Tensor]:
    """Pictures (B, 3, H, W) -> what the generator's codec leaves of them."""
    return lambda images: made.codec.decode(made.codec.encode(images.to(made.device), torch.arange(len(images))))


def generator() -> Any:
    """tiny-flow without guidance, sampled as in the paper: Heun's method on even times, the last step Euler's."""
    return unguided(load_generator(MODEL))


def unguided(made: Any) -> Any:
    made.guidance, made.plan = 1.0, Plan(heun, even_times(HEUN_STEPS))
    return made
