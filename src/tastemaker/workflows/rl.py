"""`tastemaker train drl|flow-grpo|masked-grpo|nft|awm`: each method meets its generator, its rewards and its run.

All of them draw without guidance by default, and so do the looks on the way and the comparison at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..algorithms import awm, drl, flow_grpo, masked_grpo, nft
from ..algorithms.groups import reward_weights
from ..algorithms.kept import Kept
from ..algorithms.memoryless import Scheme, begun_at, transposed_scheme
from ..algorithms.optimise import TrainingState
from ..errors import TastemakerError
from ..generators.masked import MaskedGenerator
from ..generators.samplers import ddpm, sde
from ..generators.unmasking import random_order
from ..protocols import Plan, Reward
from ..records import StepRecord
from .processes import spread
from .runs import Run, open_run
from .sample import Combined
from .tuning import Bench, beginning, carry_out, pictures, prepared


def train_drl(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """DRL by adjoint matching; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(drl.Config, config_path, overrides, resume, track)
    generator, kept = bench.generator, Kept()
    generator.guidance = config.guidance
    drl.require_gradient(bench.reward)
    drl.require_buffer(config, generator.shape)
    scheme, base = scheme_of(config, generator), reference_of(generator)
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return drl.train(generator, base, bench.reward, bench.prompts, batches, config, state, scheme, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def scheme_of(config: drl.Config, generator: Any) -> Scheme:
    """The memoryless process in the steps and with the weights that the configuration names.

    Raises TastemakerError where the generator's times begin after 0, and only its own ones will do.
    """
    weigh = drl.WEIGHTINGS[config.weighting]
    if config.integrator == drl.NATIVE:
        return begun_at(weigh(transposed_scheme(Plan(ddpm, generator.plan.times))), config.first_time)
    if generator.plan.times[0] > 0:
        raise TastemakerError(
            f"'{config.model}' has a time grid of its own, which begins at t = {generator.plan.times[0]:.3g}: "
            "expected integrator=native"
        )
    return begun_at(weigh(drl.INTEGRATORS[config.integrator](config.integration_steps)), config.first_time)


def train_flow_grpo(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """Flow-GRPO; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(flow_grpo.Config, config_path, overrides, resume, track)
    rewards = rewards_of(bench, config)
    generator, base, kept = bench.generator, reference_of(bench.generator), Kept()
    plan = Plan(sde, generator.plan.times, config.noise_level)
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return flow_grpo.train(generator, base, rewards, bench.prompts, batches, config, state, plan, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def train_masked_grpo(
    config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track=""
) -> Run:
    """GRPO of a masked-token generator; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(masked_grpo.Config, config_path, overrides, resume, track)
    if not isinstance(bench.generator, MaskedGenerator):
        raise TastemakerError(
            f"'{config.model}' draws no tokens: expected a masked-token generator such as tiny-masked; others are "
            "tuned by `train flow-grpo`"
        )
    rewards = rewards_of(bench, config)
    generator, base, kept = bench.generator, reference_of(bench.generator), Kept()
    plan = Plan(random_order, generator.plan.times)
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return masked_grpo.train(generator, base, rewards, bench.prompts, batches, config, state, plan, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def train_nft(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """DiffusionNFT; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(nft.Config, config_path, overrides, resume, track)
    rewards = rewards_of(bench, config)
    generator, base, kept = bench.generator, reference_of(bench.generator), Kept()
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return nft.train(generator, base, rewards, bench.prompts, batches, config, state, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def train_awm(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """AWM; data: captioned pictures for the pretraining loss."""
    config, bench = prepared(awm.Config, config_path, overrides, resume, track)
    rewards = rewards_of(bench, config)
    generator, base, kept = bench.generator, reference_of(bench.generator), Kept()
    run = open_run(config, out, resume, beginning(generator))
    batches = pictures(generator, config, data)

    def train(state: TrainingState) -> Iterator[StepRecord]:
        return awm.train(generator, base, rewards, bench.prompts, batches, config, state, kept)

    return carry_out(train, bench, config, run, track, {"round": kept})


def reference_of(generator: Any) -> Any:
    """The reference of the KL, with weights of its own that are sharded where the generator's are to be."""
    base = generator.reference()
    if base.network is not generator.network:  # else it is the generator with its adapter switched off
        spread(base.network)
    return base


def rewards_of(bench: Bench, config: Any) -> Sequence[Reward]:
    """What is trained on, reward by reward, with one weight each; the looks are drawn with the same guidance."""
    bench.generator.guidance = config.groups.guidance
    rewards = bench.reward.rewards if isinstance(bench.reward, Combined) else [bench.reward]
    reward_weights(config.groups, rewards)
    return rewards
