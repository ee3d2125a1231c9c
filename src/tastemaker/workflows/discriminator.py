"""`tastemaker train discriminator`: real pictures, a generator's own, a frozen encoder and a run folder meet.

Both kinds of pictures are seen as they would be saved: clamped, rounded to 8 bits, at the side that the generator
draws. Pair k is a real picture and one that the generator drew for the same prompt from a seed of its own. Equal real
pictures lie in one part (training, validation, test), so the parts share no picture of either kind.
Letters: N pairs, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import track as progress
from torch import Tensor

from ..algorithms import discriminator
from ..algorithms.discriminator import Config, Pairs, Pixels, logistic, logits
from ..algorithms.optimise import begin
from ..algorithms.selection import Selection
from ..data.batches import Dataset
from ..data.split import part_of
from ..devices import best_device, device_name, place
from ..encoders.protocol import Encoder, extract
from ..encoders.table import load_encoder
from ..errors import TastemakerError
from ..evaluation.intervals import bootstrap_mean
from ..picture_bytes import as_bytes, from_bytes
from ..randomness import mix
from ..records import Interval, Prompt, StepRecord
from ..rewards.discriminator import CLASS, NOTHING, Discriminator, HeadConfig, ProjectionHead, Told, told_by
from ..rewards.looks import Looks
from ..sampling import sample
from .follow import follow
from .load import load_generator
from .real_pictures import Chosen, choose, real_pictures
from .runs import Run, open_run, read_settings
from .sample import check_words, plan_of
from .sinks import open_sinks, sink_names
from .tuning import beginning, speaks_of_the_world, stored

CHUNK = 256  # pairs that are put away at once
AT_ONCE = 32  # pictures that an encoder sees; few stay in a processor's cache
SHARES = ("train", "validation", "test")
Keep = Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]  # name, how to make it -> tensors


def train_discriminator(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Tell real pictures from a generator's; data: the real ones, else those of the embedded world."""
    config = read_settings(Config, config_path, overrides, resume)
    sink_names(track)
    generator, encoder = load_generator(config.model), load_encoder(config.encoder)
    bench = Bench(
        generator, encoder, told_of(config, generator), choose(real_pictures(data, generator, config), config), config
    )
    bench.check()
    seen = {"encoder": encoder.provenance.weight_hash, "told": bench.told.weight_hash}
    run = open_run(config, out, resume, beginning(generator) | seen)

    def keep(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return stored(run.checkpoints / f"{name}.safetensors", make)

    def drive(records: Iterator[StepRecord], selection: Selection) -> None:
        run.restore(selection)
        follow(run, records, selection, config.steps, open_sinks(track, run, selection.step))

    reward, result = learn(bench, keep, drive)
    reward.recipe = {"config": dict(run.config), "device": device_name(), "held_out": result["held_out"]["figures"]}
    reward.write(run.folder / "model.safetensors")
    run.write_result(result)
    print(result["summary"])
    return run


@dataclass(frozen=True)
class Bench:
    """What a training works with."""

    generator: Any
    encoder: Encoder
    told: Told
    chosen: Chosen
    config: Config

    def check(self) -> None:
        """Raise what a prompt would raise later, in the generator or in the head's reader."""
        prompts = self.chosen.prompts(range(len(self.chosen)))
        if self.chosen.own_prompts and self.told.name != NOTHING:
            raise TastemakerError(
                f"with prompts={self.config.prompts} the generated pictures have other prompts than the real ones: "
                f"expected condition=none, got {self.told.name}"
            )
        check_words(self.generator, prompts)
        self.told.read(prompts[:1])
        if self.told.name == CLASS:
            self.told.read(prompts)


def told_of(config: Config, generator: Any) -> Told:
    """What `condition` names; where it is empty: the class for a generator of classes, nothing where the prompts are
    not the real pictures', else the words, by tiny-clip if the generator speaks of the embedded world."""
    classes = getattr(generator, "classes", 0)
    if config.condition:
        return told_by(config.condition, classes)
    if config.prompts:
        return told_by(NOTHING)
    if classes:
        return told_by(CLASS, classes)
    return told_by("tiny-clip" if speaks_of_the_world(generator) else "minilm")


def discriminate(
    generator: Any, dataset: Dataset, encoder: Encoder, config: Config, told: Told | None = None
) -> tuple[Discriminator, dict[str, Any]]:
    """The whole training without a run folder, from objects at hand: the reward, and what `result.json` would hold.

    dataset: real pictures with their prompts, at the side that the generator draws. `config.encoder` names the
    encoder where the reward is written.
    """
    told = told or told_of(config, generator)
    bench = Bench(generator, encoder, told, choose(dataset, config), config)
    bench.check()

    def drive(records: Iterator[StepRecord], selection: Selection) -> None:
        for _ in records:
            pass

    return learn(bench, lambda name, make: make(), drive)


def learn(
    bench: Bench, keep: Keep, drive: Callable[[Iterator[StepRecord], Selection], None]
) -> tuple[Discriminator, dict[str, Any]]:
    """Draw, look, train, measure. keep: puts tensors away and finds them again. drive: consumes the records."""
    config = bench.config
    pairs, parts = looked_at(bench, keep)
    train, validation, test = (pairs.at(parts[name]) for name in SHARES)
    shape = HeadConfig(pairs.real.shape[1], bench.told.classes, bench.told.words, config.width, config.blocks)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        head = ProjectionHead(shape)
    head.standardise(torch.cat([train.real, train.fake]))
    device = best_device()
    head.to(device)
    selection = Selection(begin(head, config.optimiser))
    pixels = Pixels(bench.encoder.features, lambda rows: reals(bench, parts["train"][list(rows)].tolist()))
    drive(discriminator.train(head, train.to(device), validation.to(device), pixels, config, selection), selection)
    selection.keep_best()
    head.cpu().eval().requires_grad_(False)
    reward = Discriminator(head, bench.encoder, config.encoder, bench.told, looks=looks_of(config))
    prompts = [p.text or str(p.label) for p in bench.chosen.prompts(parts["test"].tolist())]
    return reward, result_of(figures_of(head, test, prompts), {n: len(parts[n]) for n in SHARES}, selection.best_step)


# pictures and their features


def looked_at(bench: Bench, keep: Keep) -> tuple[Pairs, dict[str, Tensor]]:
    """Features of all pairs, and which rows belong to which part."""
    place(bench.encoder)
    starts = range(0, len(bench.chosen), CHUNK)
    shown = progress(starts, "drawing and looking", console=Console(stderr=True))
    found = [keep(f"pairs-{first:07d}", partial(chunk, bench, first)) for first in shown]
    real, fake, told, part = (torch.cat([f[name] for f in found]) for name in ("real", "fake", "told", "part"))
    parts = {name: (part == k).nonzero()[:, 0] for k, name in enumerate(SHARES)}
    short = [name for name in SHARES if len(parts[name]) < 2]
    if short:
        raise TastemakerError(
            f"{len(part)} pairs leave fewer than two for {' and '.join(short)}: give more pictures, or larger shares"
        )
    return Pairs(real, fake, told), parts


def chunk(bench: Bench, first: int) -> dict[str, Tensor]:
    """The pairs from `first` on."""
    places = list(range(first, min(first + CHUNK, len(bench.chosen))))
    prompts = bench.chosen.prompts(places)
    told, real = bench.told.read(prompts).cpu(), bench.chosen.images(places)  # first what may be refused
    keys = [hashlib.sha256(as_bytes(image).numpy().tobytes()).hexdigest() for image in real]
    if bench.config.real_through_decoder:
        real = decoded(bench, real, places)
    fake, looks = fakes(bench, prompts, places), looks_of(bench.config)
    return {
        "real": extract(bench.encoder, next(looks.copies(real)).split(AT_ONCE)),
        "fake": extract(bench.encoder, next(looks.copies(fake)).split(AT_ONCE)),
        "told": told,
        "part": torch.tensor([part_number(key, bench.config) for key in keys]),
    }


def part_number(key: str, config: Config) -> int:
    train = 1 - config.validation_share - config.test_share
    shares = dict(zip(SHARES, (train, config.validation_share, config.test_share)))
    return SHARES.index(part_of(key, shares, config.seed))


def fakes(bench: Bench, prompts: Sequence[Prompt], places: Sequence[int]) -> Tensor:
    """(B, 3, S, S), clamped and rounded to 8 bits."""
    seeds = [mix(bench.config.seed, 5, k) for k in places]
    bench.generator.network.eval()
    with torch.no_grad():
        plan = plan_of(bench.generator, bench.config.sample_steps)
        return from_bytes(
            as_bytes(sample(bench.generator, prompts, seeds, plan, bench.config.guidance, batch=AT_ONCE))
        )


def reals(bench: Bench, places: Sequence[int]) -> Tensor:
    """(B, 3, S, S), as they were looked at."""
    images = bench.chosen.images(places)
    images = decoded(bench, images, places) if bench.config.real_through_decoder else images
    return next(looks_of(bench.config).copies(images))


def looks_of(config: Config) -> Looks:
    return Looks(config.looks, config.look_noise, config.look_shift, config.look_tint)


@torch.no_grad()
def decoded(bench: Bench, images: Tensor, places: Sequence[int]) -> Tensor:
    """What the generator's codec leaves of pictures (B, 3, S, S), clamped and rounded to 8 bits."""
    device, codec = next(bench.generator.network.parameters()).device, bench.generator.codec
    seeds = torch.tensor([mix(bench.config.seed, 6, k) for k in places])
    parts = [codec.decode(codec.encode(i.to(device), s)).cpu() for i, s in zip(images.split(64), seeds.split(64))]
    return from_bytes(as_bytes(torch.cat(parts)))


# what came out


def figures_of(head: Any, pairs: Pairs, prompts: Sequence[str]) -> dict[str, Interval]:
    """On pairs that neither taught nor chose; intervals by prompt. The loss is per picture: 0.693 at chance."""
    real, fake = logits(head, pairs)
    right = ((real > 0).float() + (fake < 0).float()) / 2
    columns: Mapping[str, Tensor] = {
        "cross-entropy": logistic(real, fake) / 2,
        "calibration: mean of exp(logit), generated": fake.exp(),
        "mean of exp(-logit), real": (-real).exp(),
        "mean logit, real": real,
        "mean logit, generated": fake,
        "accuracy (not chosen by)": right,
    }
    return {name: bootstrap_mean(values, prompts) for name, values in columns.items()}


def result_of(figures: Mapping[str, Interval], counts: Mapping[str, int], best_step: int) -> dict[str, Any]:
    """For result.json and the page."""
    said = figures["calibration: mean of exp(logit), generated"]
    held = "holds 1" if said.low <= 1 <= said.high else "does not hold 1: the logit is not yet log q/p"
    summary = (
        f"Calibration: E_fake[exp(logit)] = {said.value:.3f} [{said.low:.3f}, {said.high:.3f}] on {said.count} pairs "
        f"that were held out; the interval {held}. Cross-entropy {figures['cross-entropy'].value:.3f} (0.693 says "
        f"nothing), accuracy {figures['accuracy (not chosen by)'].value:.3f}. Weights of step {best_step}, "
        f"{counts['train']} pairs for training, {counts['validation']} for validation."
    )
    held_out = {"label": "pairs held out", "figures": {name: asdict(value) for name, value in figures.items()}}
    return {"summary": summary, "held_out": held_out, "counts": dict(counts), "best_step": best_step}
