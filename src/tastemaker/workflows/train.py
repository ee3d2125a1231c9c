"""`tastemaker train`: where an algorithm meets its data, its generator and its run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..algorithms import clip, pretrain
from ..algorithms.optimise import TrainingState, begin
from ..data.batches import Batches
from ..data.captioned import Captioned
from ..data.datasets import from_csv, from_folder, from_tar, read_table
from ..data.grid import save_grid
from ..devices import best_device, device_name
from ..encoders.tiny_clip import TinyClip, TowerConfig
from ..encoders.words import Vocabulary, split_words
from ..errors import TastemakerError
from ..generators.networks import NetworkConfig
from ..generators.tiny_flow import TinyFlow
from ..randomness import mix
from ..ranks import first, on_first, own
from ..records import Prompt, StepRecord
from ..sampling import sample
from ..world.dataset import noisy_world
from ..world.grammar import evaluation_prompts, prompt_of, swapped, vocabulary
from .follow import follow
from .processes import assembled, join, spread
from .runs import Run, open_run, read_settings
from .sinks import open_sinks, sink_names


def train_pretrain(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Pretrain a tiny flow transformer on the noisy world, or on one's own captioned pictures."""
    join()
    config = read_settings(pretrain.Config, config_path, overrides, resume)
    sink_names(track)
    own(range(config.batch_size))  # raises where processes cannot share it
    dataset, kept_out, words = captioned_data(data, config, noisy_world)
    run = open_run(config, out, resume)
    side = config.size // config.scale
    shape = NetworkConfig(side, config.patch, config.width, config.depth, config.width // 32, scale=config.scale)
    generator = TinyFlow.new(shape, Vocabulary(words, config.words), config.seed)
    generator.parts.to(best_device())
    network, decoder = spread(generator.network), spread(generator.decoder)
    state = begin(generator.parts, config.optimiser, generator.hidden)
    run.restore(state)
    batches = Batches(dataset, config.batch_size, config.seed)
    records = pretrain.train(generator, batches, config, state)
    follow(
        run,
        sampled(records, generator, state, run, grid_prompts(data, dataset, kept_out), config),
        state,
        config.steps,
        open_sinks(track, run, state.step),
    )
    with state.ema_weights():
        generator.recipe = run_recipe(run, state)
        generator.network = assembled(generator.network, network).cpu()
        generator.decoder = assembled(generator.decoder, decoder).cpu()
        on_first(lambda: generator.save(run.folder))
    return run


def train_clip(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Train tiny-clip on the clean and degraded world with true captions, or on one's own captioned pictures."""
    config = read_settings(clip.Config, config_path, overrides, resume)
    sink_names(track)
    dataset, _, words = captioned_data(data, config, true_world)
    run = open_run(config, out, resume)
    shape = TowerConfig(config.size, config.width, config.depth, heads=config.width // 32)
    towers = TinyClip.new(shape, Vocabulary(words, config.words), config.seed)
    towers.network.to(best_device())
    state = begin(towers.network, config.optimiser)
    run.restore(state)
    batches = Batches(dataset, config.batch_size, config.seed)
    negatives = world_negatives if data is None else no_negatives
    records = clip.train(towers, batches, negatives, config, state)
    follow(run, records, state, config.steps, open_sinks(track, run, state.step))
    with state.ema_weights():
        towers.recipe = run_recipe(run, state)
        towers.network.cpu()
        towers.write(run.folder / "model.safetensors")
    return run


def true_world(seed: int, size: int):
    """True captions; three pictures in ten degraded, so that towers meet them too."""
    return noisy_world(seed, size, wrong_captions=0.0)


def world_negatives(captions: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Each caption with one fact changed."""
    return [prompt_of(swapped(p.spec or {}, mix(seed, k))) for k, p in enumerate(captions)]


def no_negatives(captions: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Free captions give no one fact to change: the other captions of the batch are the negatives."""
    return []


def captioned_data(data: Path | None, config: Any, world) -> tuple[Any, Captioned | None, list[str]]:
    """The training set, what is held out from it, and the words of its captions."""
    if data is None:
        return world(config.seed, config.size), None, vocabulary()
    own, kept_out = readable(Path(data), config.size, config.captions), None
    if config.held_out:
        own, kept_out = own.held_out(config.held_out, config.seed)
    words = Vocabulary.of((own.prompt(i).text for i in range(len(own))), config.words).words
    return own, kept_out, words


def read_captioned(path: Path, size: int, template: str = "") -> Captioned:
    if path.is_dir():
        return from_folder(path, size)
    if path.suffix == ".csv":
        label = "label" if "label" in read_table(path)[1] else None
        return from_csv(path, size, caption=template or "caption", label=label)
    if path.suffix == ".tar":
        return from_tar(path, size)
    raise TastemakerError(f"{path} is not a folder, a .csv or a .tar of captioned pictures")


def readable(path: Path, size: int, template: str = "") -> Captioned:
    """The captioned pictures that can be read; the first few that cannot are printed."""
    own = read_captioned(path, size, template)
    for problem in own.problems()[:5]:
        print(f"left out: {problem}")
    return own.readable()


def grid_prompts(data: Path | None, dataset: Any, kept_out: Captioned | None) -> list[Prompt]:
    """What the sample grids show: the world's tasks, or captions of one's own pictures, held-out ones last."""
    if data is None:
        return evaluation_prompts(4)
    return [own.prompt(i * len(own) // 12) for own in (dataset, kept_out) if own is not None for i in range(12)]


def sampled(
    records: Iterable[StepRecord], generator: Any, state: TrainingState, run: Run, prompts, config
) -> Iterator[StepRecord]:
    """The records, with a grid of samples of the averaged weights written every so often."""
    for record in records:
        if record.step % config.sample_every == 0 or record.step == config.steps:
            with state.ema_weights(), evaluating(generator.network):
                known = [Prompt(known_words(p.text, generator.vocabulary)) for p in prompts]
                images = sample(generator, known, range(len(known)))
            if first():
                save_grid(images, run.samples / f"step-{record.step:06d}.png", [p.text for p in prompts])
        yield record


def known_words(text: str, words: Vocabulary) -> str:
    """The part of a caption that the model reads."""
    return " ".join([w for w in split_words(text) if w in words.number][: words.length])


@contextlib.contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    network.eval()
    try:
        yield
    finally:
        network.train()


def run_recipe(run: Run, state: TrainingState) -> dict[str, Any]:
    """What a model file says of how it was made."""
    return {"config": dict(run.config), "steps": state.step, "device": device_name()}
