"""Flow-GRPO: the policy gradient on the steps of a stochastic sampler (Liu et al. 2025, arXiv 2505.05470).

A round draws K pictures of each prompt by the process of noise level a, sigma_t = a sqrt((1 - t) / t) in our time
(Eq. 9), whose steps have the densities p(x' | x) = N(mean, std^2). With the advantage A of a picture over its group:

    L = sum_k [ max(-A rho_k, -A clip(rho_k, 1 - c, 1 + c)) + (1 / lambda) KL_k ],  rho_k = p(x' | x) / p_old(x' | x)
    KL_k = |mean - mean_ref|^2 / (2 std^2)

The variant `exact` is that: log-densities and KLs are sums over the elements of x, std is the step's own, and A is
the reward minus its group's mean, so that the sum of L over the steps is the KL-regularised objective of the path. At
a = sqrt(2) the process is memoryless and the aim p_base exp(lambda r); at the release's 0.7 it is not quite. The
variant `published` is the release's: the mean of the log-density over the elements, A over the group's deviation and
cut at +-5, a KL without the step's length, and the mean over the steps.

The log-ratio is computed from the two means, not as a difference of two large log-densities, and the old policy is
evaluated on the same rows as the new one: at the first step of a round the ratio is 1, exactly, for any batch size.
Needs of the generator: a trajectory, `guided_velocity`, `reference()`. Needs no gradient of the reward. Letters:
B rows of a piece, N pictures of a round, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..protocols import Condition, Plan, Reward, Transition
from ..randomness import mix
from ..ranks import gather, own
from ..records import Prompt, StepRecord
from .adjoint_buffer import trajectory
from .advantages import mean_free, standardised, surrogate
from .anchor import captioned_data
from .groups import GroupConfig, advantages_of, asked, condition_of_rows, judged, old_policy, remembered
from .kept import Kept, update_in_pieces, with_anchor
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .rollout import chosen_steps
from .tuning import TuningConfig

MOST_ADVANTAGE = 5.0  # of the published variant
CLIP = {"exact": 0.2, "published": 1e-4}


@dataclass(frozen=True)
class Config(TuningConfig):
    """Flow-GRPO: how much noise, how strongly, on how many pictures."""

    variant: str = "exact"
    """exact: sums in nats, advantages in the reward's unit; published: the release's means and deviations"""
    noise_level: float = 0.7
    """a: the process adds a sqrt((1 - t) / t) of noise; 1.414 is the memoryless schedule"""
    strength: float = 10.0
    """lambda of the exact variant: the weight of the KL is 1 / lambda"""
    kl_weight: float = 0.04
    """beta of the published variant"""
    clip: float | None = None
    """c: how far a ratio may leave 1; null: 0.2 for exact, 1e-4 for published"""
    trained_share: float = 1.0
    """share of the sampling steps that an update takes, drawn anew each time, in (0, 1]"""
    batch_size: int = 6
    """P: prompts of a round; as many captioned pictures for the pretraining loss"""
    groups: GroupConfig = field(default_factory=GroupConfig)
    """how many pictures a round draws, and how long they are trained on"""
    pretraining_weight: float = 0.0
    """of the loss on captioned pictures; 0 is the published form"""
    seed: int = 0
    """of prompts, noise and steps"""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=1e-4, warmup_steps=5))

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.variant in CLIP, f"a variant among {', '.join(CLIP)}", self.variant)
        expect(
            self.noise_level > 0, "a noise_level above 0, since a step without noise has no density", self.noise_level
        )
        expect(self.strength > 0 and self.kl_weight >= 0, "strength above 0, kl_weight of at least 0", self.strength)
        expect(self.clip is None or self.clip > 0, "a clip above 0, or null", self.clip)
        expect(0 < self.trained_share <= 1, "trained_share in (0, 1]", self.trained_share)

    @property
    def clip_range(self) -> float:
        """c."""
        return CLIP[self.variant] if self.clip is None else self.clip


# the objective


def log_ratio(mean: Tensor, mean_old: Tensor, std: Tensor, x: Tensor) -> Tensor:
    """log N(x; mean, std^2) - log N(x; mean_old, std^2), a sum over the elements, (B,); std (B,)."""
    wide = std.reshape(-1, *[1] * (x.ndim - 1))
    moved, drawn = (mean - mean_old) / wide, (x - mean_old) / wide
    return (moved * drawn - moved**2 / 2).flatten(1).sum(1)


def step_kl(mean: Tensor, mean_ref: Tensor, std: Tensor) -> Tensor:
    """|mean - mean_ref|^2 / (2 std^2), the KL of two steps of the same variance in nats, (B,)."""
    return (mean - mean_ref).pow(2).flatten(1).sum(1) / (2 * std**2)


def published_kl(mean: Tensor, mean_ref: Tensor, noise: Tensor) -> Tensor:
    """The release's: the mean over the elements of (mean - mean_ref)^2 / (2 g^2), (B,), g (B,) being the noise of the
    process and not of the step: the step's length is left out."""
    return (mean - mean_ref).pow(2).flatten(1).mean(1) / (2 * noise**2)


@dataclass(frozen=True)
class Step:
    """One step of some particles under the policy, the old policy and the reference: means (B, ...); x drawn; std and
    length of the step (B,)."""

    mean: Tensor
    mean_old: Tensor
    mean_ref: Tensor
    std: Tensor
    length: Tensor
    x: Tensor


def exact(step: Step, advantage: Tensor, config: Config) -> Tensor:
    """The clipped surrogate plus KL / lambda, (B,)."""
    ratio = log_ratio(step.mean, step.mean_old, step.std, step.x)
    return (
        surrogate(ratio, advantage, config.clip_range) + step_kl(step.mean, step.mean_ref, step.std) / config.strength
    )


def published(step: Step, advantage: Tensor, config: Config) -> Tensor:
    """The release's objective, (B,)."""
    ratio = log_ratio(step.mean, step.mean_old, step.std, step.x) / step.x[0].numel()
    cut = advantage.clamp(-MOST_ADVANTAGE, MOST_ADVANTAGE)
    kl = published_kl(step.mean, step.mean_ref, step.std / step.length.sqrt())
    return surrogate(ratio, cut, config.clip_range) + config.kl_weight * kl


OBJECTIVES: dict[str, Callable[[Step, Tensor, Config], Tensor]] = {"exact": exact, "published": published}


# a round and an update


def drawn(
    generator: Any, rewards: Sequence[Reward], prompts: Sequence[Prompt], config: Config, plan: Plan, number: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Round `number`: x (T + 1, N, ...), prompt (N,), advantage (N,), the weights that drew it; and figures. Of
    several processes each draws and keeps N / W of the pictures."""
    ask = asked(prompts, config.batch_size, config.groups.per_prompt, config.seed, number)
    x, scores = [], []
    for rows in own(torch.arange(len(ask.rows))).split(config.groups.rows_at_once):
        condition = condition_of_rows(generator, prompts, ask.rows[rows], config.groups.guidance)
        states = trajectory(generator, condition, ask.seeds[rows], plan)
        x.append(torch.stack([s.x.cpu() for s in states]))
        scores.append(judged(rewards, generator.preview(states[-1]), condition))
    compare = mean_free if config.variant == "exact" else standardised
    advantage, figures = advantages_of(gather(torch.cat(scores)), ask.groups, rewards, config.groups, compare)
    kept = {"x": torch.cat(x, 1), "prompt": own(ask.rows), "advantage": own(advantage)}
    return kept | remembered(generator.network), figures


def noisy_steps(plan: Plan) -> list[int]:
    """The steps that draw noise, and so have a density. Raises TastemakerError where none does."""
    times, zero = torch.tensor(plan.times, dtype=torch.float64), torch.zeros(plan.steps, 1, dtype=torch.float64)
    step = plan.sampler(lambda x, t: torch.zeros_like(x), zero, times[:-1], times[1:], plan.eta)
    found = (step.std > 0).nonzero()[:, 0].tolist()
    if not found:
        raise TastemakerError("no step of the plan draws noise, so none has a density; use `sde` with eta above 0")
    return found


@dataclass
class Tally:
    """Sums over the rows of one update."""

    rows: int = 0
    ratio: float = 0.0
    clipped: float = 0.0
    kl: float = 0.0

    def add(self, step: Step, config: Config) -> None:
        log = log_ratio(step.mean.detach(), step.mean_old, step.std, step.x)
        ratio = (log / (1 if config.variant == "exact" else step.x[0].numel())).exp()
        self.rows += len(ratio)
        self.ratio += float(ratio.sum())
        self.clipped += float(((ratio - 1).abs() > config.clip_range).sum())
        self.kl += float(step_kl(step.mean.detach(), step.mean_ref, step.std).sum())

    def figures(self, steps: int) -> dict[str, float]:
        """Mean ratio, share of ratios beyond the clip, and the path's KL to the reference in nats."""
        return {
            "ratio": self.ratio / self.rows,
            "clipped": self.clipped / self.rows,
            "kl": self.kl / self.rows * steps,
        }


def losses(
    generator: Any, base: Any, kept: Kept, condition: Condition, config: Config, plan: Plan, step: int, tally: Tally
) -> Iterator[Tensor]:
    """The loss of one update, a scalar for each piece: a mean over the N pictures, of the exact variant's sum over
    the steps, of the published one's mean."""
    x, advantage = kept.tensors["x"], kept.tensors["advantage"]
    device, total = next(generator.network.parameters()).device, x.shape[1]
    steps = chosen_steps(noisy_steps(plan), config.trained_share, config.seed, step)
    pieces = [(k, rows) for k in steps for rows in torch.arange(total).split(config.groups.rows_at_once)]
    path = len(noisy_steps(plan)) if config.variant == "exact" else 1

    def mean_of(who: Any, k: int, rows: Tensor) -> Transition:
        x_k = x[k, rows].to(device)
        t, s = (x_k.new_full((len(rows),), plan.times[i]) for i in (k, k + 1))
        return plan.sampler(who.guided_velocity(condition[rows]), x_k, t, s, plan.eta)

    first = step % config.groups.updates == 0  # then the policy is the old one
    olds = [] if first else old_means(generator, kept, lambda k, rows: mean_of(generator, k, rows).mean, pieces)
    for i, (k, rows) in enumerate(pieces):
        with torch.no_grad():
            ref = mean_of(base, k, rows).mean
        new = mean_of(generator, k, rows)
        old = new.mean.detach() if first else olds[i]
        length = new.std.new_full((len(rows),), plan.times[k + 1] - plan.times[k])
        taken = Step(new.mean, old, ref, new.std, length, x[k + 1, rows].to(device))
        tally.add(taken, config)
        terms = OBJECTIVES[config.variant](taken, advantage[rows].to(device), config)  # (B,)
        yield terms.sum() * path / (total * len(steps))


def old_means(
    generator: Any, kept: Kept, mean_of: Callable[[int, Tensor], Tensor], pieces: Sequence[tuple[int, Tensor]]
) -> list[Tensor]:
    """What the old policy says on the same pieces."""
    with old_policy(generator.network, kept), torch.no_grad():
        return [mean_of(k, rows) for k, rows in pieces]


def train(
    generator: Any,
    base: Any,
    rewards: Sequence[Reward],
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    plan: Plan,
    kept: Kept,
) -> Iterator[StepRecord]:
    """One optimiser step a turn; goes on from `state.step`, with the round in `kept` where it is not over.

    base: the reference of the KL, `generator.reference()` before any update. plan: a stochastic sampler, such as
    `sde` with eta = noise_level. Several rewards: each is standardised by itself (`advantages.decoupled`). Raises
    TastemakerError for a plan without noise and for groups of one.
    """
    noisy = noisy_steps(plan)
    generator.network.eval()
    data, condition = captioned_data(batches, config.pretraining_weight, state.step, config.workers), None
    while state.step < config.steps:
        step, number = state.step, state.step // config.groups.updates
        if kept.number != number:
            kept.begin(number, *drawn(generator, rewards, prompts, config, plan, number))
            condition = None
        if condition is None:
            condition = condition_of_rows(generator, prompts, kept.tensors["prompt"], config.groups.guidance)
        tally = Tally()
        found = losses(generator, base, kept, condition, config, plan, step, tally)
        seeds = own(draw_seeds(mix(config.seed, 2), step, config.batch_size))
        figures = update_in_pieces(state, with_anchor(found, generator, data, config.pretraining_weight, seeds))
        yield StepRecord(state.step, kept.figures | tally.figures(len(noisy)) | figures)
