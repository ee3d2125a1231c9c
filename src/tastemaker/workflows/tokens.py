"""`tastemaker train tokenizer|masked`: the two stages of a masked-token generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from ..algorithms import masked, tokenizer
from ..algorithms.optimise import TrainingState, begin
from ..data.batches import Batches
from ..data.grid import save_grid
from ..devices import best_device
from ..encoders.words import Vocabulary
from ..generators.class_checkpoints import description
from ..generators.tiny_masked import KIND, TinyMasked, load_tiny_masked
from ..generators.token_network import TokenNetworkConfig
from ..generators.vq import Tokenizer, TokenizerConfig, load_tokenizer, save_tokenizer
from ..ranks import on_first, own
from ..records import StepRecord
from ..weights import shipped
from ..world.dataset import noisy_world
from .follow import follow
from .processes import assembled, join, spread
from .runs import Run, open_run, read_settings
from .sinks import open_sinks, sink_names
from .train import captioned_data, evaluating, grid_prompts, readable, run_recipe, sampled
from .versions import weight_hash

SHOWN = 8  # pictures of a sheet


def train_tokenizer(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Train a tokenizer on the noisy world's pictures, or on one's own."""
    config = read_settings(tokenizer.Config, config_path, overrides, resume)
    shape = TokenizerConfig(config.size, config.factor, config.bits, config.channels)
    sink_names(track)
    world = noisy_world(config.seed, config.size)
    dataset = world if data is None else readable(Path(data), config.size, config.captions)
    run = open_run(config, out, resume)
    network = Tokenizer.new(shape, config.seed).to(best_device())
    state = begin(network, config.optimiser)
    run.restore(state)
    batches = Batches(dataset, config.batch_size, config.seed)
    shown = torch.stack([dataset[k * len(dataset) // SHOWN][0] for k in range(SHOWN)])
    records = compared(tokenizer.train(network, batches, config, state), network, state, run, shown, config)
    follow(run, records, state, config.steps, open_sinks(track, run, state.step))
    with state.ema_weights():
        save_tokenizer(network.cpu(), run.folder / "model.safetensors", run_recipe(run, state))
    return run


def compared(
    records: Iterable[StepRecord], network: Tokenizer, state: TrainingState, run: Run, images: Tensor, config
) -> Iterator[StepRecord]:
    """The records, with a sheet written every so often: pictures above what the averaged weights draw of their
    tokens."""
    for record in records:
        if record.step % config.sample_every == 0 or record.step == config.steps:
            with state.ema_weights(), evaluating(network), torch.no_grad():
                drawn = network(images.to(next(network.parameters()).device))[0].clamp(0, 1).cpu()
            path = run.samples / f"step-{record.step:06d}.png"
            save_grid(torch.cat([images, drawn]), path, columns=len(images))
        yield record


def train_masked(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Pretrain a masked-token transformer on the noisy world, or on one's own captioned pictures."""
    join()
    config = read_settings(masked.Config, config_path, overrides, resume)
    sink_names(track)
    own(range(config.batch_size))  # raises where processes cannot share it
    frozen = tokenizer_of(config.tokenizer)
    of_tokens = frozen.config
    dataset, kept_out, words = captioned_data(data, SimpleNamespace(**vars(config), size=of_tokens.size), noisy_world)
    run = open_run(config, out, resume, {"tokenizer": weight_hash(frozen)})
    shape = TokenNetworkConfig(of_tokens.side, of_tokens.bits, config.width, config.depth, config.width // 32)
    generator = TinyMasked.new(shape, frozen, Vocabulary(words, config.words), config.seed)
    generator.parts.to(best_device())
    empty = spread(generator.network)
    state = begin(generator.network, config.optimiser, generator.hidden)
    run.restore(state)
    batches = Batches(dataset, config.batch_size, config.seed)
    records = masked.train(generator, batches, config, state)
    shown = sampled(records, generator, state, run, grid_prompts(data, dataset, kept_out), config)
    follow(run, shown, state, config.steps, open_sinks(track, run, state.step))
    with state.ema_weights():
        generator.recipe = run_recipe(run, state)
        generator.network = assembled(generator.network, empty).cpu()
        generator.tokenizer.cpu()
        on_first(lambda: generator.save(run.folder))
    return run


def tokenizer_of(path: str) -> Tokenizer:
    """The tokenizer of a run or file, that of a masked-token generator too; empty: of the shipped one. Raises
    TastemakerError where there is none."""
    file = Path(path) if path else shipped(KIND)
    said = description(file / "model.safetensors" if file.is_dir() else file)
    return load_tiny_masked(file).tokenizer if said.get("kind") == KIND else load_tokenizer(file)
