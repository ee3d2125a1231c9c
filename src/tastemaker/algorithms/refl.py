"""ReFL: the gradient of a reward through one late step of sampling (ImageReward, Xu et al. 2023, arXiv 2304.05977,
Algorithm 1 and Eqs. 4 and 5).

Noise is denoised without gradient up to a step drawn among the late ones; one evaluation with gradient predicts the
picture, and the reward of that prediction is pushed up to a margin:

    L = lambda E[phi(r)] + L_pre,     phi(r) = relu(margin - r)

A random step is essential: always the last is unstable. L_pre is the pretraining loss on captioned pictures, which
the paper has and its release leaves out; without it the pictures fall apart. The reward is standardised by its mean
and deviation on the untuned generator, so the margin is in those units; the maps of the release and of the paper's
text stand beside ours as `official_loss` and `paper_loss`. Pictures are clamped to [0, 1] before they are judged, as
in the release: nothing is to be gained outside the range that can be shown.

Needs of the generator: the verbs of a trajectory with `preview(grad=True)`, and `draw` and `loss`. Needs of the
reward: differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import TastemakerError, expect
from ..protocols import Condition, Generator, Reward, State
from ..randomness import mix, stream
from ..ranks import gather, own
from ..records import Prompt, StepRecord
from .anchor import anchored, captioned_data
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .rollout import choose, judge, require_gradient
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """ReFL: how long, how strongly, through which steps."""

    reward_weight: float = 0.03
    """lambda: how much the reward counts beside the pretraining loss"""
    margin: float = 1.0
    """the standardised reward above which there is no more gradient"""
    reward_mean: float = 0.0
    """of the reward on the untuned generator; `train refl` measures it"""
    reward_std: float = 1.0
    """its standard deviation"""
    guidance: float = 1.0
    """of the training's own trajectories; 1: none, as in the release; more makes each step twice as long"""
    first_late: float = 0.75
    """the earliest step that may carry the gradient, as a share of the sampling steps, in [0, 1)"""
    pretraining_weight: float = 1.0
    """of the loss on captioned pictures; 0 is the released code's form"""
    steps: int = 120
    """optimiser steps"""
    seed: int = 0
    """of prompts, noise and steps"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=1e-4, warmup_steps=5, ema_decay=0.95)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.reward_std > 0, "a reward_std above 0", self.reward_std)
        expect(0 <= self.first_late < 1, "first_late in [0, 1)", self.first_late)


LossMap = Callable[[Tensor], Tensor]  # rewards (B,) -> loss (B,)


def hinge(reward: Tensor, margin: float) -> Tensor:
    """phi(r) = relu(margin - r), (B,). Where the reward is NaN there is no loss and no gradient."""
    return F.relu(margin - torch.where(reward.isnan(), margin, reward))


def standardised_loss(config: Config) -> LossMap:
    """Ours: lambda relu(margin - (r - mean) / std)."""
    return lambda r: config.reward_weight * hinge((r - config.reward_mean) / config.reward_std, config.margin)


def official_loss(reward: Tensor, scale: float = 1e-3, margin: float = 2.0) -> Tensor:
    """The release's: scale relu(margin - r) on the reward as ImageReward gives it, (B,); flat from the margin on."""
    return scale * hinge(reward, margin)


def paper_loss(reward: Tensor, scale: float = 1e-3) -> Tensor:
    """The paper's text: phi = ReLU and lambda = 1e-3, read as what is to be raised: -scale relu(r), (B,). A picture
    whose reward is below 0 gives no gradient, which is why the release turned it round. NaN: no loss."""
    return -scale * F.relu(torch.where(reward.isnan(), 0.0, reward))


def late_state(generator: Generator, condition: Condition, seeds: Tensor, late: int) -> State:
    """The particles before step `late`, without a gradient."""
    state = generator.start(condition, seeds)
    for _ in range(late):
        state = generator.advance(state)
    return state


def late_preview(generator: Generator, condition: Condition, seeds: Tensor, late: int) -> Tensor:
    """Pictures (B, 3, H, W) predicted at step `late`, with the gradient of that one evaluation."""
    return generator.preview(late_state(generator, condition, seeds, late), grad=True).clamp(0, 1)


def late_step(config: Config, total: int, step: int) -> int:
    """Drawn evenly from the late steps of `total`, the last included."""
    first = min(int(config.first_late * total + 1e-9), total - 1)  # 0.58 of 50 is 29, whatever rounding says
    return int(stream(config.seed, step=step, purpose="late step").integers(first, total))


def train(
    generator: Generator,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    loss_map: LossMap | None = None,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`.

    batches: captioned pictures for the pretraining loss, or None to do without (the pictures may then drift).
    loss_map: in place of `standardised_loss(config)`, for example `official_loss`.
    Raises NotDifferentiable for a reward without gradient.
    """
    require_gradient(reward)
    if not prompts:
        raise TastemakerError("no prompts to train on; expected at least one")
    generator.network.eval()
    loss_map = loss_map or standardised_loss(config)
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        chosen = own(choose(prompts, config, state.step))
        seeds = own(draw_seeds(mix(config.seed, 1), state.step, config.batch_size))
        late = late_step(config, generator.plan.steps, state.step)
        condition = Condition.of(chosen, config.guidance)
        raw = judge(reward, late_preview(generator, condition, seeds, late), chosen)
        judged = gather(raw.detach())
        figures = {"reward": float(judged.nanmean()), "late_step": late, "no_score": int(judged.isnan().sum())}
        loss, more = anchored(loss_map(raw).mean(), generator, data, config.pretraining_weight, seeds)
        figures |= more | state.update(loss)
        yield StepRecord(state.step, figures)
