"""What the parts of miro.py share: the scored pictures, the runs from nothing with looks on the way, what they draw.

Every run sees the same pictures of the noisy world in 64 x 64, scored once; its flow draws 32 x 32 behind tiny-flow's
decoder, which is not trained. Runs of one seed begin with the same weights and see the same batches. What is compared
is guided equally: with MIRO's g = 3 at the end, and with tiny-flow's own g = 2 on the way, where the baseline stands
beside MIRO with nothing asked. Letters: P prompts, K pictures of a prompt, J judges, T looks, V kinds of captions,
N pictures, R rewards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tastemaker.algorithms import miro
from tastemaker.algorithms.optimise import TrainingState, begin
from tastemaker.data.bins import Bins, levels_of, make_bins
from tastemaker.data.scored_set import ScoredSet
from tastemaker.devices import best_device, place
from tastemaker.encoders.protocol import extract
from tastemaker.encoders.table import load_encoder
from tastemaker.encoders.words import Vocabulary
from tastemaker.evaluation.diversity import per_prompt
from tastemaker.generators.networks import NetworkConfig
from tastemaker.generators.tiny_flow import TinyFlow, load_tiny_flow
from tastemaker.generators.tiny_miro import GUIDANCE, TinyMiro
from tastemaker.picture_bytes import as_bytes, from_bytes
from tastemaker.protocols import Reward
from tastemaker.records import Prompt, StepRecord
from tastemaker.sampling import sample_batches, score
from tastemaker.weights import shipped
from tastemaker.workflows.configs import plain
from tastemaker.workflows.follow import follow
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.miro import labelled, scale_of
from tastemaker.workflows.runs import open_run
from tastemaker.workflows.scored import WorldSource, kept_set
from tastemaker.workflows.train import evaluating
from tastemaker.world.dataset import noisy_world
from tastemaker.world.grammar import evaluation_prompts, vocabulary

from .miro_judges import REWARDS, judges
from .simulated_pool import stored

COMMAND = "python -m evidence.miro"
WORLD = 51_000  # seed of the pictures
SPACE = "efficientnet-lite0"  # held out: no reward looks at pictures through it
WORDS = 12
BASELINE_GUIDANCE = 2.0  # tiny-flow's own
EARLY = 0.9  # of a baseline's steps: where `tuned` takes it over


@dataclass(frozen=True)
class Scale:
    """steps, batch_size of each run; pictures that are scored; per_task prompts of each of six tasks; each: pictures
    of a prompt at the end. Of best-of-N: searched prompts of each task, few pictures of MIRO's and most of the
    baseline's for each."""

    seeds: tuple[int, ...] = (0, 1, 2)
    pictures: int = 12_000
    steps: int = 1600
    batch_size: int = 32
    width: int = 96
    depth: int = 4
    looks: int = 8
    per_task: int = 16
    each: int = 4
    searched: int = 6
    few: int = 8
    most: int = 128
    compile: bool = best_device().type == "cpu"


QUICK = Scale(
    (0,), 256, 12, 8, width=32, depth=1, looks=3, per_task=2, each=2, searched=1, few=2, most=4, compile=False
)


@dataclass(frozen=True)
class Run:
    """One training: its settings, and the rewards that it is told."""

    name: str
    config: miro.Config
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lab:
    """cache: pictures and runs. partial: a record of each finished run."""

    cache: Path
    partial: Path
    scale: Scale = Scale()

    @property
    def seeds_of_ablations(self) -> tuple[int, ...]:
        """The same, whichever seeds are run now."""
        return Scale.seeds[:1]

    @cached_property
    def judges(self) -> list[Reward]:
        return judges()

    @cached_property
    def scored(self) -> ScoredSet:
        source = WorldSource(noisy_world(WORLD, 64), self.scale.pictures, True, self.judges[: len(REWARDS)])
        return kept_set(self.cache / "pictures", source)

    @cached_property
    def bins(self) -> list[Bins]:
        pooled = self.scored.scores.flatten(0, 1)  # (V N, R)
        return [make_bins(n, p, column) for (n, p), column in zip(self.scored.rewards.items(), pooled.T)]

    @cached_property
    def levels(self) -> Tensor:
        """(V, N, R)."""
        return levels_of(self.bins, self.scored.scores)

    @cached_property
    def prompts(self) -> list[Prompt]:
        return evaluation_prompts(self.scale.per_task, seed=WORLD)

    @cached_property
    def texts(self) -> list[str]:
        """Of the pictures at the end."""
        return [p.text for p in self.prompts for _ in range(self.scale.each)]

    def config(self, seed: int, **more: Any) -> miro.Config:
        scale = self.scale
        sizes = {"steps": scale.steps, "batch_size": scale.batch_size, "width": scale.width, "depth": scale.depth}
        return miro.Config(model="none", seed=seed, compile=scale.compile, **sizes, **more)

    def run(self, kind: str, seed: int) -> Run:
        """kind: baseline, miro, filtered, weighted, one of REWARDS alone, or the first two with `-synthetic`."""
        name, _, captions = kind.partition("-")
        told = REWARDS if name == "miro" else (name,) if name in REWARDS else ()
        share, temperature = 0.25 if name == "filtered" else 1.0, 0.2 if name == "weighted" else 0.0
        how = {"synthetic": 0.5 if captions else 0.0, "keep_share": share, "weight_temperature": temperature}
        return Run(f"{kind}-{seed}", self.config(seed, **how), told)

    def fresh(self, run: Run) -> TinyFlow:
        shape = NetworkConfig(32, 4, self.scale.width, self.scale.depth, self.scale.width // 32)
        flow = TinyFlow.new(shape, Vocabulary(vocabulary(), WORDS), run.config.seed)
        flow.decoder.load_state_dict(load_tiny_flow(shipped("tiny-flow")).decoder.state_dict())
        flow.decoder.requires_grad_(False)
        place(flow)
        if not run.told:
            return flow
        columns = [REWARDS.index(name) for name in run.told]
        scale = scale_of([self.bins[k] for k in columns], self.levels[..., columns])
        return TinyMiro.begun(flow, scale, run.config.seed)

    def look_steps(self) -> list[int]:
        """T steps, evenly in their logarithm from 1/40 of a run to its end."""
        spaced = torch.logspace(-torch.tensor(40.0).log10().item(), 0, self.scale.looks, dtype=torch.float64)
        return sorted({max(1, round(float(share) * self.scale.steps)) for share in spaced})

    @property
    def early_step(self) -> int:
        return max(1, round(EARLY * self.scale.steps))

    def early(self, seed: int) -> Path:
        """The baseline of that seed as it was at `early_step`."""
        return self.trained(self.run("baseline", seed)) / "early"

    def trained(self, run: Run) -> Path:
        """Where the model of a run lies; trained now if it is not there, and gone on with where it was cut."""
        folder = self.cache / run.name
        if not (folder / "model.safetensors").is_file():
            generator = self.fresh(run)
            begun = folder if (folder / "config.yaml").is_file() else None
            out = open_run(run.config, None if begun else folder, begun)
            state = begin(generator.parts, run.config.optimiser, generator.hidden)
            out.restore(state)
            data = labelled(self.scored, self.levels, run.told, run.config)
            records = miro.train(generator, data, run.config, state)
            follow(out, self.looked(records, generator, state, folder), state, run.config.steps)
            with state.ema_weights():
                generator.save(folder)
        return folder

    def measured(self, kind: str, seed: int) -> dict[str, Tensor]:
        """The record of a run with its own targets: `looks` (T, P, J) on the way, `unasked` where nothing is asked of
        a generator that is told rewards; `scores` (P K, J) and `spread` (P,) of what it draws at the end. For one
        that is told none, whose looks are guided by 2, `end` (P, J) is the last look again, guided as the others
        are."""
        run = self.run(kind, seed)

        def make() -> dict[str, Tensor]:
            folder = self.trained(run)
            looks = [load_file(folder / f"look-{step}.safetensors") for step in self.look_steps()]
            found = {name: torch.stack([look[name] for look in looks]) for name in looks[0]}
            generator = loaded(folder)
            if not run.told:
                found["end"] = self.judged(generator, 1)
            return found | self.finale(generator)

        return self.once(run.name, make)

    def once(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The record of a finished run of this scale, or made now and written."""
        return stored(self.partial / f"miro-{name}.safetensors", make, self.told)

    @property
    def told(self) -> dict[str, str]:
        """In every record: the scale, but for what changes no run's figures."""
        return {"scale": json.dumps(plain(replace(self.scale, seeds=(), compile=False)), sort_keys=True)}

    def looked(
        self, records: Iterable[StepRecord], generator: TinyFlow, state: TrainingState, folder: Path
    ) -> Iterator[StepRecord]:
        for record in records:
            if record.step in self.look_steps():
                with state.ema_weights(), evaluating(generator.network):
                    found = {"looks": self.judged(generator, 1)}
                    if isinstance(generator, TinyMiro):
                        found["unasked"] = self.judged(unasked(generator), 1)
                save_file(found, folder / f"look-{record.step}.safetensors")
            if record.step == self.early_step and folder.name.startswith("baseline-"):
                with state.ema_weights():
                    generator.save(folder / "early")
            yield record

    def judged(self, generator: Any, each: int) -> Tensor:
        """(P each, J), each as `numbered` has them."""
        return torch.cat([self.scores(images, asked) for images, asked in seen(generator, *self.numbered(each))])

    def scores(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, J)."""
        return score(self.judges, images, prompts, batch=len(images))

    def repeated(self, each: int) -> list[Prompt]:
        return [p for p in self.prompts for _ in range(each)]

    def numbered(self, each: int) -> tuple[list[Prompt], range]:
        """P each prompts with their seeds; picture k of a prompt has the same for every generator."""
        prompts = self.repeated(each)
        return prompts, range(7_000_000, 7_000_000 + len(prompts))

    def finale(self, generator: Any) -> dict[str, Tensor]:
        """What it draws at the end: `scores` (P K, J), and `spread` (P,) of each prompt's pictures in the space held
        out, prompts by their words."""
        encoder, scores, features = load_encoder(SPACE), [], []
        for images, asked in seen(generator, *self.numbered(self.scale.each)):
            scores.append(self.scores(images, asked))
            features.append(extract(encoder, images.split(16)))
        spread = per_prompt(torch.cat(features).numpy(), self.texts)
        return {"scores": torch.cat(scores), "spread": torch.from_numpy(spread)}

    def finales(self, kind: str, seeds: Sequence[int] | None = None) -> list[dict[str, Tensor]]:
        """Of every seed's run, trained now if it is not."""
        return [self.measured(kind, seed) for seed in (self.scale.seeds if seeds is None else seeds)]


def seen(generator: Any, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Iterator[tuple[Tensor, list[Prompt]]]:
    """Pictures (b, 3, H, W), through 8 bits as files would be, with their prompts; b is what the device can use."""
    b, first = 32 if best_device().type == "cpu" else 1024, 0
    with torch.no_grad():
        for images in sample_batches(generator, prompts, seeds, batch=b):
            yield from_bytes(as_bytes(images)), list(prompts[first : first + len(images)])
            first += len(images)


def loaded(folder: Path) -> Any:
    """The generator of a run, guided as strongly as MIRO."""
    generator: Any = load_generator(str(folder))
    generator.guidance = GUIDANCE
    return generator


def unasked(generator: TinyMiro) -> TinyMiro:
    """The same generator with nothing asked, guided by the caption alone as the baseline is on the way."""
    made = generator.unasked()
    made.guidance = BASELINE_GUIDANCE
    return made


def mean_scores(runs: Sequence[dict[str, Tensor]]) -> Tensor:
    """(P K, J): the mean over seeds."""
    return torch.stack([one["scores"] for one in runs]).mean(0)
