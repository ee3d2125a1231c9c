"""DRaFT: the gradient of a reward through the last K steps of sampling (Clark et al. 2023, arXiv 2309.17400,
Algorithm 1); AlignProp (Prabhudesai et al. 2023, arXiv 2310.03739) is the same with K drawn at random.

    L = -E[r(x(theta, c, x_T))],   the gradient cut before the last K steps; K = T is the whole chain

DRaFT-LV (the paper's low-variance form, for K = 1): the picture that was drawn is noised again to the last step n
more times, each time with fresh noise, and denoised with a gradient; the n + 1 gradients are averaged, and cost one
network evaluation each in place of a whole rollout. Letters: B batch, T sampling steps.

The paper has no pretraining loss and holds the pictures together by LoRA, early stopping and LoRA's scale; here
`pretraining_weight` adds ReFL's, and 0 is the paper's form. The reward is standardised by its mean and deviation on
the untuned generator, which scales the gradient and nothing else. Pictures are clamped to [0, 1] before they are
judged. Needs of the generator: `advance(grad=True)`, `preview(grad=True)`, and `draw` and `loss` for the pretraining
loss. Needs of the reward: differentiable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import TastemakerError, expect
from ..protocols import Condition, Generator, Reward, State
from ..randomness import mix
from ..ranks import gather, own
from ..records import Prompt, StepRecord
from .anchor import anchored, captioned_data
from .optimise import TrainingState
from .pretrain import Captioned, draw_seeds
from .rollout import choose, condition_of, judge, require_gradient
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """DRaFT-K: how long, how strongly, through how many steps."""

    last_steps: int = 1
    """K: the sampling steps that carry the gradient; at least the plan's number: all of them"""
    fresh_noises: int = 0
    """n of DRaFT-LV, for last_steps = 1: how often a picture is noised and denoised again, such as 2"""
    reward_weight: float = 0.1
    """how much the standardised reward counts beside the pretraining loss"""
    reward_mean: float = 0.0
    """of the reward on the untuned generator; `train draft` measures it"""
    reward_std: float = 1.0
    """its standard deviation"""
    pretraining_weight: float = 1.0
    """of the loss on captioned pictures; 0 is the paper's form"""
    seed: int = 0
    """of prompts and noise"""

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.last_steps >= 1, "last_steps of at least 1", self.last_steps)
        expect(self.reward_std > 0, "a reward_std above 0", self.reward_std)
        expect(
            self.fresh_noises == 0 or (self.fresh_noises > 0 and self.last_steps == 1),
            "fresh_noises of 0, or above 0 with last_steps = 1",
            f"{self.fresh_noises} with last_steps = {self.last_steps}",
        )


def objective(reward: Tensor, mean: float, std: float) -> Tensor:
    """-(r - mean) / std, (B,). Where the reward is NaN there is no loss and no gradient."""
    return (mean - torch.where(reward.isnan(), mean, reward)) / std


def rollout(
    generator: Generator, condition: Condition, seeds: Tensor, last_steps: int, checkpointing: bool = False
) -> State:
    """The end of a trajectory, its x (B, ...) with the gradient of the last `last_steps` steps.

    checkpointing: keep only the states between those steps, and compute each step again in the backward pass.
    """
    state = generator.start(condition, seeds)
    total = state.plan.steps
    for k in range(total):
        with_gradient = k >= total - last_steps
        if with_gradient and checkpointing:
            state = advance_again(generator, state)
        else:
            state = generator.advance(state, grad=with_gradient)
    return state


def advance_again(generator: Generator, state: State) -> State:
    """One step with a gradient, whose inside is computed again in the backward pass."""

    def step(x: Tensor) -> Tensor:
        return generator.advance(replace(state, x=x), grad=True).x

    return replace(state, x=checkpoint(step, state.x, use_reentrant=False), step=state.step + 1)


def noised_again(state: State, draw: int) -> State:
    """The last step once more: the finished x, cut from the graph, noised back to where that step began.

    The forward process from time e to t < e on the straight path is x_t = (t / e) x_e + s n with
    s^2 = (1 - t)^2 - (t / e)^2 (1 - e)^2. draw: 0, 1, ... gives each its own noise.
    """
    t, e = state.plan.times[-2:]
    kept = t / e
    spread = max(0.0, (1 - t) ** 2 - (kept * (1 - e)) ** 2) ** 0.5
    x = kept * state.x.detach() + spread * state.noise(f"draft again {draw}")
    return replace(state, x=x, step=state.step - 1)


def pictures(generator: Generator, condition: Condition, seeds: Tensor, config: Config) -> list[Tensor]:
    """What is judged, (B, 3, H, W) in [0, 1] with a gradient: the pictures, and for DRaFT-LV their fresh versions."""
    ends = [rollout(generator, condition, seeds, config.last_steps, config.gradient_checkpointing)]
    ends += [generator.advance(noised_again(ends[0], k), grad=True) for k in range(config.fresh_noises)]
    return [generator.preview(end, grad=True).clamp(0, 1) for end in ends]


def train(
    generator: Generator,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`.

    batches: captioned pictures for the pretraining loss, or None to do without.
    Raises NotDifferentiable for a reward without gradient.
    """
    require_gradient(reward)
    if not prompts:
        raise TastemakerError("no prompts to train on; expected at least one")
    generator.network.eval()
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        chosen = own(choose(prompts, config, state.step))
        seeds = own(draw_seeds(mix(config.seed, 1), state.step, config.batch_size))
        seen = pictures(generator, condition_of(generator, chosen), seeds, config)
        raw = torch.stack([judge(reward, images, chosen) for images in seen])  # (1 + n, B)
        loss = config.reward_weight * objective(raw, config.reward_mean, config.reward_std).mean()
        judged = gather(raw[0].detach())
        figures = {"reward": float(judged.nanmean()), "no_score": int(judged.isnan().sum())}
        loss, more = anchored(loss, generator, data, config.pretraining_weight, seeds)
        figures |= more | state.update(loss)
        yield StepRecord(state.step, figures)
