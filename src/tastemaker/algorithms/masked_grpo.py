"""Group-relative policy gradient on the steps of a masked-token generator (GRPO, Shao et al. 2024, arXiv 2402.03300,
Eq. 3, on the trajectories of MaskGIT, arXiv 2202.04200): reward guidance with a gradient.

A round draws K pictures of each prompt in a random order that no token has a say in, so every step has a density: the
product of those of the tokens i that it reveals. With the advantage A of a picture over its group:

    L = sum_k sum_i [ max(-A rho_i, -A clip(rho_i, 1 - c, 1 + c)) + (1 / lambda) KL_i ]
    rho_i = p(x_i | x_k) / p_old(x_i | x_k),    KL_i = sum_v p(v | x_k) log(p(v | x_k) / p_ref(v | x_k))

Sums over tokens and steps, A the reward minus its group's mean: at ratio 1 the gradient is that of E[r] - KL / lambda
over whole paths, in nats, whose optimum is p_ref exp(lambda r) / Z. The KL of a token is over all codes and not the
estimate from the drawn one. (The release of Image-Generation-CoT adds a verifier's score to DPO's loss, where it has
no gradient.) The old policy is evaluated on the same rows as the new one: at the first step of a round all ratios are
1. Needs of the generator: `guided_logits`, a trajectory by `random_order`, `reference()`. Needs no gradient of the
reward. Letters: B rows of a piece, M pictures of a round, N tokens, V codes, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Condition, Plan, Reward
from ..randomness import mix
from ..ranks import gather, own
from ..records import Prompt, StepRecord
from ..token_probability import token_log_prob
from .adjoint_buffer import trajectory
from .advantages import mean_free, surrogate
from .anchor import captioned_data
from .groups import GroupConfig, advantages_of, asked, condition_of_rows, judged, old_policy, remembered
from .kept import Kept, update_in_pieces, with_anchor
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .rollout import chosen_steps
from .tuning import TuningConfig


@dataclass(frozen=True)
class Config(TuningConfig):
    """GRPO for masked tokens: how strongly, on how many pictures."""

    model: str = "tiny-masked"
    """the masked-token generator that is tuned"""
    strength: float = 10.0
    """lambda: the weight of the KL is 1 / lambda"""
    clip: float = 0.2
    """c: how far a token's ratio may leave 1"""
    trained_share: float = 1.0
    """share of the sampling steps that an update takes, drawn anew each time, in (0, 1]"""
    batch_size: int = 6
    """P: prompts of a round; as many captioned pictures for the pretraining loss"""
    groups: GroupConfig = field(default_factory=GroupConfig)
    """how many pictures a round draws, and how long they are trained on"""
    pretraining_weight: float = 0.0
    """of the loss on captioned pictures; 0: none"""
    seed: int = 0
    """of prompts, tokens and steps"""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=1e-4, warmup_steps=5))

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.strength > 0 and self.clip > 0, "strength and clip above 0", f"{self.strength}, {self.clip}")
        expect(0 < self.trained_share <= 1, "trained_share in (0, 1]", self.trained_share)


def token_kl(logits: Tensor, logits_ref: Tensor) -> Tensor:
    """KL(p || p_ref) at each position in nats, (B, N, V) twice -> (B, N)."""
    log_p, log_ref = logits.log_softmax(-1), logits_ref.log_softmax(-1)
    return (log_p.exp() * (log_p - log_ref)).sum(-1)


@dataclass(frozen=True)
class Revealed:
    """One step of some particles: scores (B, N, V) of the policy and the reference at the state before; the tokens
    after, (B, N), and log p of these under the old policy, (B, N); which of them the step revealed, (B, N) bool."""

    logits: Tensor
    logits_ref: Tensor
    tokens: Tensor
    log_old: Tensor
    mask: Tensor

    def log_ratio(self) -> Tensor:
        """log rho of each token, (B, N)."""
        return token_log_prob(self.logits, self.tokens) - self.log_old

    def kl(self) -> Tensor:
        """Of the step, in nats, (B,)."""
        return (token_kl(self.logits, self.logits_ref) * self.mask).sum(1)


def objective(step: Revealed, advantage: Tensor, config: Config) -> Tensor:
    """The clipped surrogate of the revealed tokens plus KL / lambda, a sum over them, (B,); advantage (B,)."""
    followed = (surrogate(step.log_ratio(), advantage[:, None], config.clip) * step.mask).sum(1)
    return followed + step.kl() / config.strength


# a round and an update


def drawn(
    generator: Any, rewards: Sequence[Reward], prompts: Sequence[Prompt], config: Config, plan: Plan, number: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Round `number`: x (T + 1, M, N) tokens, prompt (M,), advantage (M,), the weights that drew it; and figures. Of
    several processes each draws and keeps its part of the pictures."""
    ask = asked(prompts, config.batch_size, config.groups.per_prompt, config.seed, number)
    x, scores = [], []
    for rows in own(torch.arange(len(ask.rows))).split(config.groups.rows_at_once):
        condition = condition_of_rows(generator, prompts, ask.rows[rows], config.groups.guidance)
        states = trajectory(generator, condition, ask.seeds[rows], plan)
        x.append(torch.stack([s.x.cpu() for s in states]))
        scores.append(judged(rewards, generator.preview(states[-1]), condition))
    advantage, figures = advantages_of(gather(torch.cat(scores)), ask.groups, rewards, config.groups, mean_free)
    kept = {"x": torch.cat(x, 1), "prompt": own(ask.rows), "advantage": own(advantage)}
    return kept | remembered(generator.network), figures


@dataclass
class Tally:
    """Sums over the revealed tokens and the rows of one update."""

    tokens: int = 0
    rows: int = 0
    ratio: float = 0.0
    clipped: float = 0.0
    kl: float = 0.0

    def add(self, step: Revealed, clip: float) -> None:
        with torch.no_grad():
            ratio = step.log_ratio()[step.mask].exp()
            self.tokens, self.rows = self.tokens + len(ratio), self.rows + len(step.tokens)
            self.ratio += float(ratio.sum())
            self.clipped += float(((ratio - 1).abs() > clip).sum())
            self.kl += float(step.kl().sum())

    def figures(self, steps: int) -> dict[str, float]:
        """Mean ratio of a token, share of ratios beyond the clip, and the path's KL to the reference in nats."""
        count = max(1, self.tokens)
        return {"ratio": self.ratio / count, "clipped": self.clipped / count, "kl": self.kl / self.rows * steps}


def losses(
    generator: Any, base: Any, kept: Kept, condition: Condition, config: Config, plan: Plan, step: int, tally: Tally
) -> Iterator[Tensor]:
    """The loss of one update, a scalar for each piece: a mean over the M pictures of the sum over the steps."""
    x, advantage = kept.tensors["x"], kept.tensors["advantage"]
    device, total = next(generator.network.parameters()).device, x.shape[1]
    steps = chosen_steps(range(plan.steps), config.trained_share, config.seed, step)
    pieces = [(k, rows) for k in steps for rows in torch.arange(total).split(config.groups.rows_at_once)]

    def scores(who: Any, k: int, rows: Tensor) -> Tensor:
        return who.guided_logits(x[k, rows].to(device), condition[rows])

    def log_probs() -> list[Tensor]:
        """Of the policy that is in the network now, (B, N) of each piece."""
        with torch.no_grad():
            return [token_log_prob(scores(generator, k, rows), x[k + 1, rows].to(device)) for k, rows in pieces]

    first, olds = step % config.groups.updates == 0, []  # at first the policy is the old one
    if not first:
        with old_policy(generator.network, kept):
            olds = log_probs()
    for i, (k, rows) in enumerate(pieces):
        before, after = x[k, rows].to(device), x[k + 1, rows].to(device)
        with torch.no_grad():
            ref = scores(base, k, rows)
        new = scores(generator, k, rows)
        log_old = token_log_prob(new.detach(), after) if first else olds[i]
        taken = Revealed(new, ref, after, log_old, before != after)
        tally.add(taken, config.clip)
        terms = objective(taken, advantage[rows].to(device), config)  # (B,)
        yield terms.sum() * plan.steps / (total * len(steps))


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

    base: the reference of the KL, `generator.reference()` before any update. plan: with `random_order` or `raster`,
    whose steps have a density. Several rewards: each is standardised by itself (`advantages.decoupled`). Raises
    TastemakerError for groups of one.
    """
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
        yield StepRecord(state.step, kept.figures | tally.figures(plan.steps) | figures)
