"""Direct preference optimisation for flow, diffusion and masked-token generators alike.

    L = -log sigma( beta (gain(x_w) - gain(x_l)) ),     gain(x) = loss_ref(x) - loss(x)

The gain says how much better than the frozen reference the policy explains a picture. With `generator.loss` it is
Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, Eq. 14) for flow and diffusion, where the loss is a mean squared
error over the elements, and for masked tokens the log-ratio per masked token, in nats. The randomness is a Draw, and
one Draw serves winner, loser, policy and reference (`shared_draw`); gains are means over `draws` of them, inside the
sigma.

beta goes with the reduction. By a mean over masked tokens, 0.1 of a sum over about 40 of them is 4. By a mean over
the 3 x 32 x 32 numbers of tiny-flow, 2500 of the 4 x 64 x 64 of Stable Diffusion is 470. Diffusion-DPO's own code
halves its beta, and diffusers does not: their 5000 is our 2500 and our 5000.

The release of Image-Generation-CoT (arXiv 2501.13926) draws a mask for each picture and sums: then how many tokens
were masked says more than which picture is better. That is form "released", for masked tokens alone.

Rounds: the generator draws `per_prompt` pictures of each prompt, and the best and the worst by the reward are a
pair, with `pairs_per_prompt` the second best and the second worst too. A prompt whose pictures are all alike in the
reward is dropped. From the second round on the reference is the policy as it is by then (iterative DPO). Letters: B
pairs, K pictures per prompt, P prompts of a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.batches import Batches
from ..errors import TastemakerError, expect
from ..protocols import Condition, Draw, Reward
from ..randomness import mix
from ..ranks import own, world
from ..records import Prompt, StepRecord
from .anchor import Data, anchored, captioned_data
from .dpo_rounds import DrawnPairs, drawn_pairs, follow_policy, restore_reference
from .kept import Kept
from .optimise import OptimiserConfig, TrainingState
from .pretrain import Captioned, draw_seeds
from .tuning import TuningConfig

NATS_PER_TOKEN, MEAN_SQUARE = 5.0, 500.0  # beta where none is given: of masked tokens, of flow and diffusion


@dataclass(frozen=True)
class Config(TuningConfig):
    """DPO: how far from the reference, on which pairs, for how long."""

    beta: float | None = None
    """how dear it is to leave the reference, for the generator's loss as a mean; null: 5 of tokens, 500 of flows"""
    loss: str = "sigmoid"
    """of the margin: sigmoid or hinge"""
    form: str = "shared"
    """of the randomness: shared, or released, a mask for each picture and sums (masked tokens alone; beta 0.1)"""
    draws: int = 4
    """over how many draws of time and noise, or masks, a gain is averaged"""
    sft_weight: float = 0.0
    """of the chosen picture's own loss"""
    rounds: int = 1
    """how often the generator draws its pairs anew; with a file of pairs 1"""
    steps: int = 120
    """optimiser steps, over all rounds"""
    batch_size: int = 16
    """pairs a step; as many captioned pictures for the pretraining loss"""
    drawn_prompts: int = 256
    """P: prompts of a round"""
    per_prompt: int = 6
    """K: pictures of each, at least 2"""
    pairs_per_prompt: int = 1
    """pairs of a prompt at most: the best with the worst, the second best with the second worst, and so on"""
    least_difference: float = 0.0
    """two pictures that differ by no more than this are no pair; a prompt without a pair is dropped"""
    pretraining_weight: float = 0.0
    """of the loss on captioned pictures; 0 is the published form"""
    seed: int = 0
    """of prompts, pictures, noise and masks"""
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(learning_rate=1e-4, warmup_steps=10, ema_decay=0.95)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.beta is None or self.beta > 0, "a beta above 0, or null", self.beta)
        expect(self.loss in LOSSES, f"loss as one of {', '.join(LOSSES)}", self.loss)
        expect(self.form in FORMS, f"form as one of {', '.join(FORMS)}", self.form)
        expect(self.draws >= 1 and self.sft_weight >= 0, "draws of at least 1, sft_weight of at least 0", self.draws)
        expect(1 <= self.rounds <= self.steps, "rounds of at least 1 and at most steps", self.rounds)
        expect(
            self.drawn_prompts >= 1 and self.per_prompt >= 2, "drawn_prompts >= 1, per_prompt >= 2", self.per_prompt
        )
        expect(self.pairs_per_prompt >= 1, "pairs_per_prompt of at least 1", self.pairs_per_prompt)
        expect(self.least_difference >= 0, "a least_difference of at least 0", self.least_difference)


def sigmoid_loss(margin: Tensor, beta: float) -> Tensor:
    """-log sigma(beta margin), (B,)."""
    return -F.logsigmoid(beta * margin)


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """relu(1 - beta margin), (B,) (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425)."""
    return F.relu(1 - beta * margin)


LOSSES: dict[str, Callable[[Tensor, float], Tensor]] = {"sigmoid": sigmoid_loss, "hinge": hinge_loss}


def accuracy(margin: Tensor, tie: float = 0.5) -> Tensor:
    """The share of pairs with a margin above 0; one of exactly 0 counts `tie`."""
    return torch.where(margin == 0, tie, (margin > 0).float()).mean()


def shared_draw(generator: Any, winner: Tensor, loser: Tensor, seeds: Tensor) -> tuple[Draw, Draw]:
    """One draw for both."""
    draw = generator.draw(winner, seeds)
    return draw, draw


def independent_draws(generator: Any, winner: Tensor, loser: Tensor, seeds: Tensor) -> tuple[Draw, Draw]:
    """A draw for each."""
    others = torch.tensor([mix(seed, 1) for seed in seeds.tolist()])
    return generator.draw(winner, seeds), generator.draw(loser, others)


def as_mean(losses: Tensor, draw: Draw) -> Tensor:
    """As the generator gives them, (B,)."""
    return losses


def as_token_sum(losses: Tensor, draw: Draw) -> Tensor:
    """Summed over the masked tokens, (B,). Raises TastemakerError where the draw is no mask."""
    if draw.noise.dtype != torch.bool:
        raise TastemakerError("form=released is that of masked tokens; take form=shared for flow and diffusion")
    return losses * draw.noise.sum(1)


FORMS = {"shared": (shared_draw, as_mean), "released": (independent_draws, as_token_sum)}


def gains(
    policy: Any, reference: Any, winner: Tensor, loser: Tensor, condition: Condition, seeds: Tensor, config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) gain of the winners, (B,) of the losers, and the policy's own loss on the winners, (B,); means over the
    draws. winner, loser (B, ...): what the codec makes of the pictures."""
    make, reduce = FORMS[config.form]
    x1, both = torch.cat([winner, loser]), Condition.concatenate([condition, condition])
    rows = []
    for k in range(config.draws):
        numbered = torch.tensor([mix(seed, 2, k) for seed in seeds.tolist()])
        draw = Draw.concatenate(make(policy, winner, loser, numbered))
        with torch.no_grad():
            before = reference.loss(x1, both, draw)
        after = policy.loss(x1, both, draw)
        rows.append(torch.stack([reduce(before - after, draw), after]))
    gain, loss = torch.stack(rows).mean(0)  # (2 B,), (2 B,)
    return gain[: len(winner)], gain[len(winner) :], loss[: len(winner)]


def beta_of(config: Config, generator: Any) -> float:
    """What was given, or what fits the generator's loss; 0.1 for sums."""
    if config.beta is not None:
        return config.beta
    if config.form == "released":
        return 0.1
    return NATS_PER_TOKEN if hasattr(generator, "logits") else MEAN_SQUARE


def improve(
    generator: Any, base: Any, images: Tensor, captions: Sequence[Prompt], config: Config, state: TrainingState,
    data: Data | None,
) -> dict[str, float]:  # fmt: skip
    """One optimiser step on pictures (B, 2, 3, H, W), chosen before rejected; its figures."""
    device = next(generator.network.parameters()).device
    seeds = own(draw_seeds(mix(config.seed, 1), state.step, len(images) * world()))
    winner, loser = (generator.codec.encode(side.to(device), seeds) for side in images.unbind(1))
    condition = generator.prepare(getattr(generator, "caption_condition", Condition.of)(captions))
    good, bad, chosen_loss = gains(generator, base, winner, loser, condition, seeds, config)
    margin = good - bad
    loss = LOSSES[config.loss](margin, beta_of(config, generator)).mean()
    figures = {"margin": margin.mean(), "accuracy": accuracy(margin), "gain_chosen": good.mean()}
    figures |= {"gain_rejected": bad.mean(), "chosen_loss": chosen_loss.mean()}
    total, more = anchored(
        loss + config.sft_weight * chosen_loss.mean(), generator, data, config.pretraining_weight, seeds
    )
    return (
        {n: float(v.detach()) for n, v in figures.items()}
        | {"dpo_loss": float(loss.detach())}
        | more
        | state.update(total)
    )


def train(
    generator: Any, base: Any, pairs: Captioned, batches: Captioned | None, config: Config, state: TrainingState
) -> Iterator[StepRecord]:
    """One optimiser step a turn on given pairs; goes on from `state.step`.

    base: the frozen reference. pairs: batches of pictures (B, 2, 3, H, W), chosen before rejected, with their
    prompts. batches: captioned pictures for the pretraining loss, or None."""
    generator.network.eval()
    given = pairs.from_step(state.step, config.workers)
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        images, captions = next(given)
        figures = improve(generator, base, images, captions, config, state, data)
        yield StepRecord(state.step, figures)


def train_rounds(
    generator: Any,
    base: Any,
    reward: Reward,
    prompts: Sequence[Prompt],
    batches: Captioned | None,
    config: Config,
    state: TrainingState,
    kept: Kept,
) -> Iterator[StepRecord]:
    """One optimiser step a turn on pairs of the generator's own; goes on from `state.step`, with the pairs and the
    reference in `kept` where its round is not over. A round draws with the averaged weights and goes on from them."""
    generator.network.eval()
    restore_reference(base, generator, kept)
    data = captioned_data(batches, config.pretraining_weight, state.step, config.workers)
    while state.step < config.steps:
        number = state.step * config.rounds // config.steps
        figures: dict[str, float] = {}
        if kept.number != number:
            if number:
                state.keep_average()
            tensors, figures = drawn_pairs(generator, reward, prompts, config, number)
            kept.begin(number, tensors | (follow_policy(base, generator) if number else {}), {})
        pictures = DrawnPairs(kept.tensors["images"], [prompts[k] for k in kept.tensors["positions"].tolist()])
        images, captions = Batches(pictures, config.batch_size, mix(config.seed, number)).at(state.step)
        figures = figures | {"round": number + 1.0} | improve(generator, base, images, captions, config, state, data)
        yield StepRecord(state.step, figures)
