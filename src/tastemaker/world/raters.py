"""Simulated raters: people whose taste is known, so that whatever learns from them has a computable ceiling.

A rater sees pixels only. The utility of a picture is a weighted sum of what it shows of the prompt (through a
detector of its own), how sharp it is and how its colours agree. Votes follow Bradley and Terry (1952), with
Davidson's (1970) ties: P(A) : P(B) : P(tie) = e^(u_A / tau) : e^(u_B / tau) : nu e^((u_A + u_B) / (2 tau)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..protocols import Reward
from ..randomness import stream
from ..records import Prompt

CHOICES = ("a", "b", "tie")


@dataclass(frozen=True)
class Taste:
    """What raters care for, and how firmly.

    weights: by reward name, per unit of that reward as given. noise: tau, in the unit of the utility; 0.5 makes the
    better of two pictures one unit apart win about 88 times in 100. ties: nu; 0 never ties, 1 ties equals one time in
    three.
    """

    weights: Mapping[str, float] = field(
        default_factory=lambda: {"seen-alignment": 3.0, "sharpness": 1.0, "harmony": 1.0}
    )
    noise: float = 0.5
    ties: float = 0.0


def utility(rewards: Sequence[Reward], taste: Taste, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """(B,): the weighted sum of the rewards that the taste names. Raises TastemakerError where one is missing."""
    missing = set(taste.weights) - {r.name for r in rewards}
    if missing:
        raise TastemakerError(
            f"the taste weighs {', '.join(sorted(missing))}; hand that reward over, or drop its weight"
        )
    parts = [
        taste.weights[r.name] * r.score(images, prompts).float().cpu() for r in rewards if r.name in taste.weights
    ]
    return torch.stack(parts).sum(0)


def choice_probabilities(utility_a: Tensor, utility_b: Tensor, taste: Taste) -> Tensor:
    """(B, 3): of a, b and a tie."""
    a, b = utility_a.double() / taste.noise, utility_b.double() / taste.noise
    tie = (a + b) / 2 + torch.log(torch.tensor(taste.ties, dtype=torch.float64))
    return torch.softmax(torch.stack([a, b, tie], 1), 1)


def vote(utility_a: Tensor, utility_b: Tensor, taste: Taste, seeds: Sequence[int]) -> list[str]:
    """One rater's choice for each pair; seeds: one per vote. Raises TastemakerError for a utility that is NaN."""
    if (utility_a + utility_b).isnan().any():
        raise TastemakerError("a utility is NaN: leave pictures without a score out of the vote")
    chosen = []
    for p, seed in zip(choice_probabilities(utility_a, utility_b, taste).tolist(), seeds):
        chosen.append(CHOICES[int(stream(seed, purpose="vote").choice(3, p=p))])
    return chosen


def ceiling(utility_a: Tensor, utility_b: Tensor, taste: Taste) -> float:
    """The best accuracy that anybody can have on the decided votes: who knows every utility and names the likelier
    of the two. A mean over pairs, each weighted with its chance of being decided."""
    p = choice_probabilities(utility_a, utility_b, taste)
    return float(p[:, :2].max(1).values.sum() / p[:, :2].sum())
