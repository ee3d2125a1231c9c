"""`tastemaker train refl`: a generator, a reward and captioned pictures meet in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..algorithms import refl
from ..algorithms.optimise import TrainingState
from ..data.batches import Batches
from ..protocols import Reward
from ..records import Prompt
from .runs import Run, open_run, read_settings
from .sinks import sink_names
from .tuning import (
    Bench,
    carry_out,
    held_out_rewards,
    load_tunable,
    opened,
    pictures,
    standardised,
    training_prompts,
)
from .versions import weight_hash

__all__ = ["load_tunable", "pictures", "standardised", "train_refl", "training_prompts", "tune"]


def train_refl(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Tune a generator with a reward's gradient; data: captioned pictures for the pretraining loss."""
    config = read_settings(refl.Config, config_path, overrides, resume)
    sink_names(track)
    bench = opened(config)
    generator, reward, prompts = bench.generator, bench.reward, bench.prompts
    refl.require_gradient(reward)
    if config.reward_std == 1.0 and config.reward_mean == 0.0 and resume is None:
        config = standardised(config, generator, reward, prompts, config.guidance)
    run = open_run(config, out, resume, {"model": weight_hash(getattr(generator, "parts", generator.network))})
    on_bench(bench, pictures(generator, config, data), config, run, track)
    return run


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
    bench = Bench(generator, reward, prompts, held_out_rewards(config, reward))
    return on_bench(bench, batches, config, run, track)


def on_bench(bench: Bench, batches: Batches | None, config: refl.Config, run: Run, track: str = "") -> TrainingState:
    """As `tune`, with everything loaded."""

    def train(state, watch):
        return refl.train(bench.generator, bench.reward, bench.prompts, batches, config, state, watch)

    return carry_out(train, bench, config, run, track)
