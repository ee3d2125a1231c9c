"""ReFL: the gradient of a reward through one late step of sampling (ImageReward, Xu et al. 2023, arXiv 2304.05977,
Algorithm 1 and Eqs. 4 and 5).

Noise is denoised without gradient up to a step drawn among the late ones; one evaluation with gradient predicts the
picture, and the reward of that prediction is pushed up to a margin:

    L = lambda E[phi(r)] + L_pre,     phi(r) = relu(margin - r)

A random step is essential: always the last is unstable. L_pre is the pretraining loss on captioned pictures, which
the paper has and its release leaves out; without it the pictures fall apart. The reward is standardised by its mean
and deviation on the untuned generator, so the margin is in those units. Pictures are clamped to [0, 1] before they
are judged, as in the release: nothing is to be gained outside the range that can be shown.

Needs of the generator: the verbs of a trajectory with `preview(grad=True)`, and `draw` and `loss`. Needs of the
reward: differentiable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import NotDifferentiable, expect
from ..protocols import Condition, Generator, Reward
from ..randomness import mix, stream
from ..records import Prompt, StepRecord
from ..sampling import sample, score, score_checked
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds, flow_matching


@dataclass(frozen=True)
class Config:
    """ReFL: how long, how strongly, through which steps."""

    model: str = "tiny-flow"
    """the generator that `train refl` tunes"""
    reward: str = "alignment"
    """what it follows: a name of `tastemaker models`, or FILE.py:NAME; of several, with commas, the mean z-score"""
    prompts: str = ""
    """a prompt file; empty: the embedded world"""
    lora_rank: int = 16
    """of the adapter that a diffusers model gets; 0: all its weights are tuned"""
    steps: int = 60
    """optimiser steps"""
    batch_size: int = 32
    """prompts a step; as many captioned pictures for the pretraining loss"""
    reward_weight: float = 0.3
    """lambda: how much the reward counts beside the pretraining loss"""
    margin: float = 2.0
    """the standardised reward above which there is no more gradient"""
    reward_mean: float = 0.0
    """of the reward on the untuned generator; `train refl` measures it"""
    reward_std: float = 1.0
    """its standard deviation"""
    first_late: float = 0.5
    """the earliest step that may carry the gradient, as a share of the sampling steps, in [0, 1)"""
    pretraining_weight: float = 1.0
    """of the loss on captioned pictures; 0 is the released code's form"""
    watch_every: int = 20
    """steps between two looks at the rewards that are held out"""
    watch_pictures: int = 48
    """pictures of such a look"""
    seed: int = 0
    """of prompts, noise and steps"""
    workers: int = 0
    """processes that prepare pictures; 0: the training process does"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=2e-4, warmup_steps=5, ema_decay=0.95)
    )

    def __post_init__(self) -> None:
        expect(self.steps >= 1, "steps of at least 1", self.steps)
        expect(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        expect(self.reward_std > 0, "a reward_std above 0", self.reward_std)
        expect(0 <= self.first_late < 1, "first_late in [0, 1)", self.first_late)
        expect(
            self.watch_every >= 1 and self.watch_pictures >= 1,
            "watch_every and watch_pictures of at least 1",
            f"{self.watch_every}, {self.watch_pictures}",
        )


def hinge(reward: Tensor, margin: float) -> Tensor:
    """phi(r) = relu(margin - r), (B,). Where the reward is NaN there is no loss and no gradient."""
    return F.relu(margin - torch.where(reward.isnan(), margin, reward))


def late_preview(generator: Generator, condition: Condition, seeds: Tensor, late: int) -> Tensor:
    """Pictures (B, 3, H, W) predicted at step `late`, with the gradient of that one evaluation."""
    state = generator.start(condition, seeds)
    for _ in range(late):
        state = generator.advance(state)
    return generator.preview(state, grad=True).clamp(0, 1)


def require_gradient(reward: Reward) -> None:
    """Raise NotDifferentiable for a reward without gradient."""
    if not reward.differentiable:
        raise NotDifferentiable(
            f"ReFL needs a reward with a gradient; '{reward.name}' has none. Use it with `search best-of-n`, or "
            "train with alignment, sharpness or harmony"
        )


def leave_out(images: Tensor, missing: Tensor) -> None:
    """Let no gradient back into the pictures where `missing` (B,) is true: the hinge sends 0 there, but 0 times the
    derivative of what gave NaN is NaN."""
    images.register_hook(lambda g: g.masked_fill(missing.to(g.device).reshape(-1, 1, 1, 1), 0))


def late_step(config: Config, total: int, step: int) -> int:
    """Drawn evenly from the late steps of `total`, the last included."""
    first = min(int(config.first_late * total), total - 1)
    return int(stream(config.seed, step=step, purpose="late step").integers(first, total))


def choose(prompts: Sequence[Prompt], config: Config, step: int) -> list[Prompt]:
    """The prompts of this step, with replacement."""
    rows = stream(config.seed, step=step, purpose="prompts").integers(len(prompts), size=config.batch_size)
    return [prompts[i] for i in rows]


def train(
    generator: Generator,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    held_out: Sequence[Reward] = (),
    held_out_prompts: Sequence[Prompt] = (),
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`.

    batches: captioned pictures for the pretraining loss, or None to do without (the pictures may then drift).
    held_out: rewards that are not trained on, watched on prompts that are not trained on.
    Raises NotDifferentiable for a reward without gradient.
    """
    require_gradient(reward)
    generator.network.eval()
    data = batches.from_step(state.step, config.workers) if batches is not None else None
    while state.step < config.steps:
        step = state.step
        chosen = choose(prompts, config, step)
        seeds = draw_seeds(mix(config.seed, 1), step, len(chosen))
        late = late_step(config, generator.plan.steps, step)
        images = late_preview(generator, Condition.of(chosen, getattr(generator, "guidance", 1.0)), seeds, late)
        raw = score_checked(reward, images, chosen, grad=True)
        leave_out(images, raw.isnan())
        loss = config.reward_weight * hinge((raw - config.reward_mean) / config.reward_std, config.margin)
        figures = {"reward": float(raw.detach().nanmean()), "late_step": late, "no_score": int(raw.isnan().sum())}
        total = loss.mean()
        if data is not None and config.pretraining_weight:
            real, captions = next(data)
            condition = getattr(generator, "caption_condition", Condition.of)(captions)
            pretraining = flow_matching(generator, real.to(images.device), condition, seeds[: len(real)])
            figures["pretraining_loss"] = float(pretraining.detach().mean())
            total = total + config.pretraining_weight * pretraining.mean()
        figures |= state.update(total)
        if held_out and (state.step % config.watch_every == 0 or state.step == config.steps):
            figures |= watch(generator, [reward, *held_out], held_out_prompts, config)
        yield StepRecord(state.step, figures)


def watch(
    generator: Generator, rewards: Sequence[Reward], prompts: Sequence[Prompt], config: Config
) -> dict[str, float]:
    """The mean of each reward on fixed prompts and seeds: is the proxy still worth following?"""
    chosen = [prompts[i % len(prompts)] for i in range(config.watch_pictures)]
    scores = score(rewards, sample(generator, chosen, range(len(chosen))), chosen)
    return {f"held_out/{r.name}": float(column.nanmean()) for r, column in zip(rewards, scores.T)}
