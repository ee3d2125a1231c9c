"""Is the reward that is trained on still worth following? Looks at a generator while it is tuned.

A look draws the same prompts and seeds each time, with the averaged weights that a run keeps, and scores them with
the trained reward (the proxy) and with rewards that are held out. Changes are paired with the look before the first
step and given in standard deviations of that look's scores, so that rewards of different scales can be compared. A
proxy that rises while what is held out falls is being exploited (Gao et al. 2022, arXiv 2210.10760): a look is
`exploited` where the proxy is above its beginning and the held-out mean is more than `tolerance` below the best it
has been. After `patience` such looks in a row the training is to stop; what is kept is the look with the highest
proxy of those that were not exploited.

Letters: P pictures of a look, R rewards, the trained one first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Generator, Reward
from ..ranks import gather, local, part
from ..records import Prompt, StepRecord
from ..sampling import sample, score
from .optimise import TrainingState, trainable

Figures = Callable[[Tensor], Mapping[str, Tensor]]  # pictures (P, 3, H, W) -> name -> (P,)


@dataclass(frozen=True)
class WatchConfig:
    """What is looked at while a generator is tuned, how often, and when the training is to stop."""

    held_out: str = "sharpness,harmony"
    """rewards that are not trained on, with commas; those that are trained on are left out; empty: none"""
    every: int = 20
    """steps between two looks"""
    pictures: int = 48
    """pictures of a look"""
    tolerance: float = 0.5
    """how far the held-out rewards may fall below their best, in standard deviations of the untuned generator"""
    patience: int = 2
    """looks in a row with the reward up and the held-out ones down that stop the training; 0: never stop"""

    def __post_init__(self) -> None:
        expect(
            self.every >= 1 and self.pictures >= 2,
            "watch.every of at least 1 and watch.pictures of at least 2",
            f"{self.every}, {self.pictures}",
        )
        expect(
            self.tolerance >= 0 and self.patience >= 0,
            "watch.tolerance and watch.patience of at least 0",
            f"{self.tolerance}, {self.patience}",
        )


@dataclass(frozen=True)
class Look:
    """What one look found: scores (P, R), and how the pictures look, each figure (P,)."""

    scores: Tensor
    figures: Mapping[str, Tensor]


def changes(now: Tensor, before: Tensor) -> Tensor:
    """(P, R), (P, R) -> (R,): the mean paired change of each reward in standard deviations of `before`; pairs with a
    NaN are left out, and NaN where none is left."""
    known = ~before.isnan()
    centred = before - before.nanmean(0)
    deviation = (centred.nan_to_num().pow(2).sum(0) / (known.sum(0) - 1).clamp_min(1)).sqrt()
    return (now - before).nanmean(0) / torch.where(deviation > 0, deviation, 1.0)


def exploited(proxy: float, held_out: float, best_held_out: float, tolerance: float) -> bool:
    """The proxy has risen since the beginning and what is held out is more than `tolerance` below its best."""
    return proxy > 0 and held_out < best_held_out - tolerance


class Watch:
    """The looks of one training run; a part of its checkpoints.

    rewards: the trained one, then those held out. figures: how pictures look, such as `evaluation.drift.figures`;
    their mean changes are recorded as `drift/NAME`.
    """

    def __init__(
        self,
        generator: Generator,
        reward: Reward,
        held_out: Sequence[Reward],
        prompts: Sequence[Prompt],
        config: WatchConfig,
        figures: Figures | None = None,
    ):
        self.generator, self.rewards, self.config = generator, [reward, *held_out], config
        self.prompts = [prompts[i % len(prompts)] for i in range(config.pictures)]
        self.figures = figures or (lambda images: {})
        self.first: Look | None = None
        self.best_held_out, self.best_proxy = 0.0, -math.inf  # both are changes since the first look
        self.best: dict[str, Tensor] | None = None  # the averaged weights of the best look
        self.exploited_in_a_row = 0

    @property
    def stopped(self) -> bool:
        return 0 < self.config.patience <= self.exploited_in_a_row

    def look(self) -> Look:
        """With the weights that are in the generator now; several processes share the pictures."""
        count, mine = len(self.prompts), part(len(self.prompts))
        prompts = [self.prompts[i] for i in mine]
        images = sample(self.generator, prompts, mine)
        figures = {name: gather(values, count) for name, values in self.figures(images).items()}
        return Look(gather(score(self.rewards, images, prompts), count), figures)

    def begin(self, state: TrainingState) -> None:
        """The look before the first step; nothing where it was taken already."""
        if self.first is None:
            self.first = self.look()
            self._keep_if_best(state, 0.0)

    def after(self, state: TrainingState, total: int) -> dict[str, float]:
        """Figures for the record of the step just done, where one of `total` steps calls for a look."""
        if state.step % self.config.every and state.step != total:
            return {}
        with state.ema_weights():
            found = self.look()
        return self.judge(found, state)

    def judge(self, found: Look, state: TrainingState) -> dict[str, float]:
        """Take a look into account. Returns the mean of each reward, the changes of both sides, and the drift."""
        assert self.first is not None, "begin comes first"
        proxy, *others = changes(found.scores, self.first.scores).tolist()
        named = {f"held_out/{r.name}": float(column.nanmean()) for r, column in zip(self.rewards, found.scores.T)}
        moved = {f"drift/{n}": float((v - self.first.figures[n]).mean()) for n, v in found.figures.items()}
        known = [z for z in others if not math.isnan(z)]
        if not known:
            return named | {"watch/reward_change": proxy} | moved
        held_out = sum(known) / len(known)
        self.best_held_out = max(self.best_held_out, held_out)
        spoiled = exploited(proxy, held_out, self.best_held_out, self.config.tolerance)
        self.exploited_in_a_row = self.exploited_in_a_row + 1 if spoiled else 0
        if not spoiled:
            self._keep_if_best(state, proxy)
        both = {"watch/reward_change": proxy, "watch/held_out_change": held_out, "watch/exploited": float(spoiled)}
        return named | both | moved

    def keep(self, state: TrainingState) -> bool:
        """The training is over: put the averaged weights into the network, or, where the last look was exploited,
        those of the best look. Returns whether it went back."""
        back = self.config.patience > 0 and self.exploited_in_a_row > 0 and self.best is not None
        if back:
            state.ema = self.best
        state.keep_average()
        return back

    def _keep_if_best(self, state: TrainingState, proxy: float) -> None:
        if self.config.patience and len(self.rewards) > 1 and proxy > self.best_proxy:
            self.best_proxy = proxy
            weights = state.ema or trainable(state.network)
            self.best = {name: local(value.detach()).clone() for name, value in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        first = None if self.first is None else {"scores": self.first.scores, "figures": dict(self.first.figures)}
        return {
            "first": first,
            "best_held_out": self.best_held_out,
            "best_proxy": self.best_proxy,
            "best": self.best,
            "exploited_in_a_row": self.exploited_in_a_row,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        first = saved["first"]
        self.first = None if first is None else Look(first["scores"], first["figures"])
        self.best_held_out, self.best_proxy = saved["best_held_out"], saved["best_proxy"]
        self.exploited_in_a_row = saved["exploited_in_a_row"]
        device = next(iter(self.generator.network.parameters())).device
        self.best = None if saved["best"] is None else {n: v.to(device) for n, v in saved["best"].items()}


def watched(records: Iterable[StepRecord], watch: Watch, state: TrainingState, total: int) -> Iterator[StepRecord]:
    """The records of a training with what the looks on the way found, up to where the watch says stop.

    records: one per step of `total`, after `state.step` has moved on. A training that was stopped takes no step more.
    """
    watch.begin(state)
    steps = iter(records)
    while not watch.stopped and (record := next(steps, None)) is not None:
        yield replace(record, values={**record.values, **watch.after(state, total)})
