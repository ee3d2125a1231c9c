"""Where the parts of drl.py keep their runs and pictures, and the settings that all of them share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
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
from tastemaker.workflows.files import write_json
from tastemaker.world.dataset import clean_world

from . import drl_training as training
from .drl_distance import Reference, excess, neighbours
from .drl_pictures import SPACES, TRAINED, Drawn, clean_drawings, compared, drawn, trained_on

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
    discriminator learns from; steps of a head, of a DRL run (whole rounds), of one that explores, of pretraining."""

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
    """cache: runs and pictures. partial: a row for each finished run."""

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

    def config(self, strength: float, seed: int = 0, short: bool = False) -> drl.Config:
        """Of every DRL run."""
        steps = self.scale.short if short else self.scale.steps
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
        self, name: str, reward: Reward, strength: float, seed: int = 0, start: Any = None, short: bool = False
    ) -> None:
        """DRL on tiny-flow, or on `start`."""
        made, config = start or generator(), self.config(strength, seed, short)
        loop = training.drl_loop(made, reward, self.training_prompts(seed), config)
        training.carried_out(loop, made, config, self.cache / name)

    def tuned(self, name: str, scored: bool = False) -> Drawn:
        """What a run of tiny-flow that is over draws. scored: with rewards and looks."""
        file = self.cache / f"drawn-{name}"
        return drawn(file, lambda: training.tuned(generator(), self.cache / name), self.prompts, scored)

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a finished run, or made now and written, with its seconds."""
        path = self.partial / f"{NAME}-{name}.json"
        if not path.is_file():
            began = time.time()
            found = make()
            write_json(path, {"run": name, **found, "seconds": round(time.time() - began)})
            print(f"{name}: {time.time() - began:.0f} s", flush=True)
        return json.loads(path.read_text())

    def about(self, made: Drawn) -> dict[str, Any]:
        """What one run's pictures are like; distances lie above their floor only where they are called excess."""
        found: dict[str, Any] = {}
        for space, reference in self.references.items():
            features, base = made.features[space].numpy(), self.base.features[space].numpy()
            over = excess(features, reference)
            found[space] = {
                "distance": reference.distance(features),
                "excess": over,
                "base_over_this": excess(base, reference) / max(over, 1e-9),
                **neighbours(features, reference),
            }
        means = {name: float(values.mean()) for name, values in (made.scores | made.looks).items()}  # type: ignore
        return found | ({"means": means} if means else {})


def through(made: Any) -> Callable[[Tensor], Tensor]:
    """Pictures (B, 3, H, W) -> what the generator's codec leaves of them."""
    return lambda images: made.codec.decode(made.codec.encode(images.to(made.device), torch.arange(len(images))))


def generator() -> Any:
    """tiny-flow without guidance, sampled as in the paper: Heun's method on even times, the last step Euler's."""
    return unguided(load_generator(MODEL))


def unguided(made: Any) -> Any:
    made.guidance, made.plan = 1.0, Plan(heun, even_times(HEUN_STEPS))
    return made
