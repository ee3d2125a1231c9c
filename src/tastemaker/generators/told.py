"""What generators that are told rewards have in common: what their levels mean, and the targets that they ask for
where a condition has none. Letters: B batch, R rewards, K rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..protocols import Condition
from .flow import FlowGenerator
from .reward_targets import require_levels, with_null_condition

Ask = Callable[[Condition, Tensor, Tensor], Condition]  # a function of reward_targets
G = TypeVar("G", bound="ToldRewards")


@dataclass(frozen=True)
class Scale:
    """What the levels of a model mean: its rewards, its B bins, their description as data/bins.py writes it, and the
    levels (K, R) of some training pictures, NaN where one is missing."""

    rewards: tuple[str, ...]
    bins: int
    described: tuple[Mapping[str, Any], ...]
    seen: Tensor

    def snapped(self, levels: Tensor) -> Tensor:
        """To the nearest level that training had: multiples of 1 / (B - 1)."""
        return (levels * (self.bins - 1)).round() / (self.bins - 1)


class ToldRewards(FlowGenerator):
    """Targets of a condition are levels in [0, 1], NaN where nothing is wished; one without targets gets the
    generator's own, `positive` and `negative` (R,), by `ask`. `asking` makes a generator with others."""

    scale: Scale
    positive: Tensor
    negative: Tensor
    ask: Ask

    @property
    def rewards(self) -> tuple[str, ...]:
        return self.scale.rewards

    def asking(self: G, positive: Tensor, negative: Tensor, ask: Ask | None = None) -> G:
        """The same network with other targets (R,) for conditions that have none. ask: what the other branch gets;
        None: as before.

        Raises TastemakerError for targets outside [0, 1].
        """
        for vector in (positive, negative):
            require_levels(vector, self.rewards)
        made = copy.copy(self)
        made.positive, made.negative, made.ask = positive, negative, ask or self.ask
        return made

    def unasked(self: G) -> G:
        """With no wish in either branch: guidance is by the caption alone, which the other branch lacks."""
        nothing = torch.full_like(self.positive, float("nan"))
        return self.asking(nothing, nothing, with_null_condition)

    def prepare(self, condition: Condition) -> Condition:
        """A negative without targets asks for nothing but its caption."""
        if condition.cache:
            return condition
        other = condition.negative
        if other is not None and other.targets is None:
            condition = replace(condition, negative=replace(other, targets=self.no_targets(len(other))))
        if condition.targets is None and other is None:
            condition = self.ask(condition, self.positive, self.negative)
        elif condition.targets is None:
            condition = replace(condition, targets=self.positive.expand(len(condition), -1))
        return super().prepare(condition)

    def no_targets(self, rows: int) -> Tensor:
        """(rows, R) NaN."""
        return torch.full((rows, len(self.rewards)), float("nan"))

    def levels_of(self, condition: Condition) -> Tensor:
        """(B, R) on the network's device. Raises TastemakerError for targets outside [0, 1] or of other rewards."""
        targets = self.no_targets(len(condition)) if condition.targets is None else condition.targets
        require_levels(targets, self.rewards)
        return self.scale.snapped(targets.float()).to(self.device)
