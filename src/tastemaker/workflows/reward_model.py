"""`tastemaker train reward-model`: votes, a scorer and a run folder meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track as progress
from torch import Tensor

from ..algorithms import reward_model
from ..algorithms.optimise import begin
from ..algorithms.reward_model import Config, Selection
from ..data.pair_batches import PairBatches, Picture, shuffled_pairs, shuffled_prompts
from ..data.pairs import Pair
from ..devices import best_device, device_name
from ..errors import TastemakerError, UnknownName
from ..picture_bytes import as_bytes, from_bytes
from ..records import Prompt
from ..rewards import blip_scorer, feature_scorer, tiny_clip_scorer
from ..rewards.preference import Preference
from ..weights import load_weights, save_weights
from .follow import follow
from .judged import Judged, parts_of, read_judged
from .preference import preference_figures
from .runs import Run, open_run, read_settings
from .simulated_votes import simulated_votes
from .sinks import open_sinks, sink_names
from .versions import weight_hash

KEPT = 200_000  # pictures of one size in memory
MOST_COMPONENTS = 192  # of frozen features
SOME = 500  # pictures from which the scale of statistics is taken


@dataclass
class Learner:
    """A scorer, how the training loop sees it, and the pictures in the form that this reads."""

    scorer: Any  # what is written, and scores pictures
    trained: reward_model.Scorer  # the same network, on the pictures below
    pictures: Callable[[Picture], Tensor]


Start = Callable[[Config, Judged, Mapping[str, list[Pair]]], Learner]


def train_reward_model(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Learn what people prefer, from votes or a ratings table; without data, from simulated raters of the world."""
    config = read_settings(Config, config_path, overrides, resume)
    sink_names(track)
    start = starter_of(config.base)
    return learn(judgements(data, config), start, config, out, resume, track)


def learn(judged: Judged, start: Start, config: Config, out=None, resume=None, track: str = "") -> Run:
    """As `train_reward_model`, from pairs that are at hand and what `start` makes to be trained."""
    shares = config.validation_share, config.test_share
    parts = parts_of(judged, *shares, config.seed, config.ties == "drop", config.equal_prompts)
    learner = start(config, judged, parts)
    made_of = {"pairs": judged.digest, "network": weight_hash(learner.scorer.network)}
    run = open_run(config, out, resume, made_of)
    read_ahead(learner, judged, parts, run)
    fit(learner, parts, config, run, track)
    learner.scorer.recipe = {"config": dict(run.config), "steps": config.steps, "device": device_name()}
    learner.scorer.write(run.folder / "model.safetensors")
    run.write_result(result_of(learner, judged, parts["test"] or parts["validation"]))
    return run


def judgements(data: Path | None, config: Config) -> Judged:
    if data is not None:
        return read_judged(data, config.scale, config.rating_margin)
    return simulated_votes(config.simulated_prompts, config.simulated_agreement, config.seed)


def fit(learner: Learner, parts: Mapping[str, list[Pair]], config: Config, run: Run, track: str = "") -> Selection:
    """Train or go on; the best weights and the constants of the scores end up in the network."""
    network = learner.scorer.network
    network.to(best_device())
    torch.manual_seed(config.seed)  # for networks with dropout
    selection = Selection(begin(network, config.optimiser))
    run.restore(selection)
    order = shuffled_prompts if config.grouped else shuffled_pairs
    batches = PairBatches(parts["train"], learner.pictures, config.batch_size, config.seed, order)
    validation = PairBatches(parts["validation"], learner.pictures, config.batch_size)
    records = reward_model.train(learner.trained, batches, validation, config, selection)
    follow(run, records, selection, config.steps, open_sinks(track, run, selection.step))
    selection.keep_best()
    standardise(learner.trained, validation)
    network.cpu().eval().requires_grad_(False)
    return selection


@torch.no_grad()
def standardise(scorer: reward_model.Scorer, validation: PairBatches) -> None:
    """Each member's mean and deviation on the pictures of the validation pairs, every picture once."""
    scorer.network.eval()
    device = next(scorer.network.parameters()).device
    seen: dict[tuple[Picture, str], Prompt] = {}
    for pair in validation.pairs:
        seen |= {(pair.image_a, pair.prompt.text): pair.prompt, (pair.image_b, pair.prompt.text): pair.prompt}
    names, parts = list(seen), []
    for i in range(0, len(names), 64):
        images = torch.stack([validation.pictures(name) for name, _ in names[i : i + 64]])
        parts.append(scorer.logits(images.to(device), [seen[n] for n in names[i : i + 64]]).float())
    logits = torch.cat(parts, 1)  # (M, U)
    scorer.network.get_buffer("mean").copy_(logits.mean(1))
    scorer.network.get_buffer("std").copy_(logits.std(1).clamp_min(1e-6))


def result_of(learner: Learner, judged: Judged, pairs: Sequence[Pair]) -> dict[str, Any]:
    """How the model does on prompts that it never saw."""
    return preference_figures({"preference": Preference([learner.scorer])}, pairs, judged)


def on_tiny_clip(path: str, config: Config, judged: Judged, parts: Mapping[str, list[Pair]]) -> Learner:
    shape = tiny_clip_scorer.HeadConfig(config.width, config.depth, config.members)
    scorer = tiny_clip_scorer.new_on(path, shape, config.seed)
    scorer.freeze(config.frozen_share)
    for text in {pair.prompt.text for pair in judged.pairs}:
        scorer.vocabulary.encode([text])  # a word that it does not know is an error before anything is written
    scorer.standardise(some_pictures(judged, parts["train"]))
    if config.frozen_share < 1:
        return Learner(scorer, scorer, squares(judged.pictures, scorer.read))
    frozen = tiny_clip_scorer.FrozenTowers(scorer)
    return Learner(scorer, frozen, read_once(judged.pictures, frozen.read))


def some_pictures(judged: Judged, pairs: Sequence[Pair]) -> Tensor:
    """(B, 3, H, W): up to SOME different pictures of the pairs, evenly spaced among them."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.image_a, pair.image_b)))
    return torch.stack([judged.pictures(name) for name in names[:: -(-len(names) // SOME)]])


def on_features(path: str, config: Config, judged: Judged, parts: Mapping[str, list[Pair]]) -> Learner:
    encoders = feature_scorer.PackagedEncoders()
    pictures = {name for pair in parts["train"] for name in (pair.image_a, pair.image_b)}
    width = encoders.stages.dim + encoders.low.dim
    components = min(MOST_COMPONENTS, width, len(pictures) - 1)
    shape = feature_scorer.HeadConfig(width, encoders.words.dim, components, members=config.members)
    scorer = feature_scorer.FeatureScorer.new(shape, encoders, config.seed)
    return Learner(scorer, scorer, judged.pictures)


def on_imagereward(path: str, config: Config, judged: Judged, parts: Mapping[str, list[Pair]]) -> Learner:
    return blip_learner(blip_scorer.continued(needed(path, "imagereward")), config, judged)


def on_blip(path: str, config: Config, judged: Judged, parts: Mapping[str, list[Pair]]) -> Learner:
    return blip_learner(blip_scorer.new_on(needed(path, "blip"), config.seed), config, judged)


def blip_learner(scorer: blip_scorer.BlipScorer, config: Config, judged: Judged) -> Learner:
    scorer.freeze(config.frozen_share)
    return Learner(scorer, scorer, squares(judged.pictures, scorer.read))


def needed(path: str, base: str) -> str:
    if not path:
        raise TastemakerError(f"the base '{base}' needs the path of its weights; write base={base}:PATH")
    return path


BASES: dict[str, Callable[..., Learner]] = {
    "tiny-clip": on_tiny_clip,
    "features": on_features,
    "imagereward": on_imagereward,
    "blip": on_blip,
}


def starter_of(base: str) -> Start:
    """What makes a learner of `NAME` or `NAME:PATH`. Raises UnknownName."""
    name, _, path = base.partition(":")
    if name not in BASES:
        raise UnknownName("base of a reward model", name, BASES)
    return lambda config, judged, parts: BASES[name](path, config, judged, parts)


def squares(pictures: Callable[[Picture], Tensor], read: Callable[[Tensor], Tensor]) -> Callable[[Picture], Tensor]:
    """The same pictures at the size that the scorer reads, kept as bytes: they come again in every epoch."""
    kept = read_once(pictures, lambda images: as_bytes(read(images)))
    return lambda name: from_bytes(kept(name))


def read_once(pictures: Callable[[Picture], Tensor], read: Callable[[Tensor], Tensor]) -> Callable[[Picture], Tensor]:
    """What `read` makes of a picture, kept in memory."""
    kept: dict[Picture, Tensor] = {}

    def once(name: Picture) -> Tensor:
        if name not in kept:
            if len(kept) >= KEPT:
                kept.clear()
            kept[name] = read(pictures(name)[None])[0]
        return kept[name]

    return once


def read_ahead(learner: Learner, judged: Judged, parts: Mapping[str, list[Pair]], run: Run) -> None:
    """For frozen encoders: read every picture and prompt once, keep that in the run's folder, and train on it."""
    scorer = learner.scorer
    if not isinstance(scorer, feature_scorer.FeatureScorer):
        return
    pairs = judged.pairs
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.image_a, pair.image_b)))
    features = kept_features(scorer, judged, names, run.folder / "checkpoints" / "features.safetensors")
    prompts = list({pair.prompt.text: pair.prompt for pair in pairs}.values())
    words = dict(zip((p.text for p in prompts), scorer.encoders.prompts(prompts)))
    rows = dict(zip(names, features))
    trained_on = list(dict.fromkeys(n for pair in parts["train"] for n in (pair.image_a, pair.image_b)))
    scorer.network.standardise(torch.stack([rows[n] for n in trained_on]), torch.stack(list(words.values())))
    learner.trained, learner.pictures = feature_scorer.CachedScorer(scorer.network, words), rows.__getitem__


def kept_features(scorer: Any, judged: Judged, names: Sequence[Picture], path: Path) -> Tensor:
    """(N, D), read from `path` where they were written before."""
    about = {"pairs": judged.digest, "encoders": scorer.encoders.digest}
    if path.is_file():
        tensors, said = load_weights(path)
        if said == about:
            return tensors["features"]
    shown = progress(names, "reading pictures", console=Console(stderr=True))
    with torch.no_grad():
        features = torch.cat([scorer.encoders.pictures(judged.pictures(name)[None]) for name in shown])
    save_weights(path, {"features": features}, about)
    return features
