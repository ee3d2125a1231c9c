"""`tastemaker train refl`: a generator, a reward and captioned pictures meet in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..algorithms import refl
from ..algorithms.optimise import TrainingState, begin
from ..data.batches import Batches
from ..data.prompts import read_prompts
from ..protocols import Reward
from ..records import Prompt
from ..rewards.table import load_reward, load_rewards
from ..sampling import sample, score
from ..world.dataset import noisy_world
from ..world.grammar import evaluation_prompts, prompt_of, spec_of
from .follow import follow
from .load import load_generator
from .runs import Run, open_run, read_settings
from .sample import check_words, one_reward, zscore_scale
from .sinks import open_sinks, sink_names
from .train import read_captioned
from .versions import weight_hash

HELD_OUT = ("sharpness", "harmony")


def train_refl(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Tune a generator with a reward's gradient; data: captioned pictures for the pretraining loss."""
    config = read_settings(refl.Config, config_path, overrides, resume)
    sink_names(track)
    generator = load_tunable(config.model, config.lora_rank)
    prompts = read_prompts(config.prompts) if config.prompts else training_prompts(config.seed)
    check_words(generator, prompts)
    reward = one_reward(load_rewards(config.reward), generator, prompts)
    refl.require_gradient(reward)
    if config.reward_std == 1.0 and config.reward_mean == 0.0 and resume is None:
        config = standardised(config, generator, reward, prompts)
    run = open_run(config, out, resume, {"model": weight_hash(getattr(generator, "parts", generator.network))})
    tune(generator, reward, prompts, pictures(generator, config, data), config, run, track)
    return run


def load_tunable(model: str, lora_rank: int) -> Any:
    """The generator with weights that may move: all of a tiny one, an adapter of a diffusers pipeline."""
    if model.startswith("diffusers:"):
        from ..generators.diffusers_load import load

        return load(model.partition(":")[2], lora_rank=lora_rank or None)
    return load_generator(model)


def training_prompts(seed: int, count: int = 2000, without: Sequence[Prompt] = ()) -> list[Prompt]:
    """Prompts of the world; those of `without` are left out, but for the 18 single objects there are."""
    kept = {p.text for p in without if (p.spec or {}).get("tag") != "single_object"}
    made = (prompt_of(spec_of(seed * 7_368_787 + 500_000 + k)) for k in range(count))
    return [p for p in made if p.text not in kept]


def standardised(config: refl.Config, generator: Any, reward: Reward, prompts: Sequence[Prompt]) -> refl.Config:
    """The configuration with the reward's mean and deviation on 96 pictures of the untuned generator."""
    chosen = [prompts[i % len(prompts)] for i in range(96)]
    scores = score([reward], sample(generator, chosen, range(96)), chosen)
    return replace(config, reward_mean=float(scores.nanmean()), reward_std=float(zscore_scale(scores)))


def pictures(generator: Any, config: refl.Config, data: Path | None) -> Batches | None:
    """For the pretraining loss: one's own, or the noisy world for a generator that speaks its words."""
    if data is not None:
        return Batches(read_captioned(Path(data), picture_side(generator)), config.batch_size, config.seed)
    words = set(getattr(getattr(generator, "vocabulary", None), "words", ()))
    if {"photo", "umbrella"} <= words and not config.prompts:
        return Batches(noisy_world(config.seed + 1, picture_side(generator)), config.batch_size, config.seed)
    print("no captioned pictures given (--data): ReFL runs without its pretraining loss, and pictures may drift")
    return None


@torch.no_grad()
def picture_side(generator: Any) -> int:
    """Pixels, of what the generator's codec decodes."""
    blank = torch.zeros(1, *generator.shape, device=next(generator.network.parameters()).device)
    return generator.codec.decode(blank).shape[-1]


def tune(
    generator: Any,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Batches | None,
    config: refl.Config,
    run: Run,
    track: str = "",
) -> TrainingState:
    """Run or resume ReFL; the averaged weights end up in the generator and in the run's folder."""
    state = begin(generator.network, config.optimiser)
    run.restore(state)
    watched = [load_reward(name) for name in HELD_OUT if name != reward.name]
    held_out = evaluation_prompts(8, seed=1) if not config.prompts else prompts
    records = refl.train(generator, reward, prompts, batches, config, state, watched, held_out)
    follow(run, records, state, config.steps, open_sinks(track, run, state.step))
    state.keep_average()
    generator.save(str(run.folder))
    return state
