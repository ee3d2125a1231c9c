"""Flow generators of classes: the verbs of `FlowGenerator` for networks that are asked with a class number.

What differs from release to release (direction of time, what the network answers, its grid, where it guides) is one
`Release`, a record of functions; SiT, REPA, JiT and RAE each give theirs. Letters: B batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..class_numbers import class_numbers as class_numbers
from ..errors import TastemakerError
from ..protocols import Codec, Condition, Draw, Plan, State, Transition
from ..randomness import stream
from ..records import Prompt
from ..weights import save_weights
from . import lora
from .diffusers_common import unwrapped
from .diffusers_lora import adapters
from .flow import FlowGenerator
from .guidance import guided
from .paths import interpolate
from .samplers import Velocity

CLOSE = 1e-6  # times nearer than this are the same, whatever they were rounded to


def everywhere(t: Tensor) -> Tensor:
    return torch.ones_like(t, dtype=torch.bool)


def closed(low: float, high: float) -> Callable[[Tensor], Tensor]:
    """low <= t <= high."""
    return lambda t: (t >= low - CLOSE) & (t <= high + CLOSE)


def opened(low: float, high: float) -> Callable[[Tensor], Tensor]:
    """low < t < high, and t = 0 as well where low is 0."""
    return lambda t: ((t > low + CLOSE) | (low == 0)) & (t < high - CLOSE)


@dataclass(frozen=True)
class GuidanceRule:
    """Where classifier-free guidance acts; elsewhere the class's own answer stands.

    inside: the release's own times (B,) -> (B,) bool (intervals: Kynkäänniemi et al. 2024, arXiv 2404.07724).
    channels: only so many of the first ones are guided; None: all. held: a step keeps, for all its evaluations, what
    was decided at its beginning.
    """

    inside: Callable[[Tensor], Tensor] = everywhere
    channels: int | None = None
    held: bool = False


@dataclass(frozen=True)
class Release:
    """How a family of checkpoints differs from our conventions (t = 0 noise, v = x1 - x0)."""

    kind: str  # `kind:PATH` loads it
    prefix: str  # of the keys in its files
    velocity: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # network, x, t (B,), classes (B,) -> our v
    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # x1, x0, t -> the v that `loss` compares with
    native_time: Callable[[Tensor], Tensor]  # our t -> the release's
    draw_time: Callable[[np.random.Generator], float]  # our t of one training picture
    plan: Callable[[int], Plan]  # steps -> its sampler and grid
    steps: int
    guidance: float
    rule: GuidanceRule = GuidanceRule()


def straight(x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    return x1 - x0


class ClassFlow(FlowGenerator):
    """network(x, native t, classes) with a `config.classes`; about: what `save` writes beside the weights, so that
    they can be loaded again."""

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        codec: Codec,
        release: Release,
        about: Mapping[str, Any] | None = None,
        rule: GuidanceRule | None = None,
    ):
        super().__init__(network, shape, codec, release.plan(release.steps), release.guidance)
        self.release, self.about, self.rule = release, dict(about or {}), rule or release.rule
        self.classes: int = network.config.classes  # type: ignore[assignment, union-attr]

    def native_plan(self, steps: int) -> Plan:
        """The release's sampler and grid in so many steps. Raises TastemakerError below 1."""
        if steps < 1:
            raise TastemakerError(f"expected 1 step or more, got {steps}")
        return self.release.plan(steps)

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        return {"classes": class_numbers(condition.prompts, self.classes).to(self.device)}

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.release.velocity(self.network, x, t, condition.cache["classes"])

    def guided_velocity(self, condition: Condition) -> Velocity:
        condition = self.prepare(condition)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            here = self.limited(condition, t)
            return guided(self.branches(here), self.prepare, x, t, here)

        return velocity

    def limited(self, condition: Condition, t: Tensor) -> Condition:
        """Guidance 1, which is none, for rows whose time t (B,) lies outside the rule's interval."""
        inside = self.rule.inside(self.release.native_time(t)).to(condition.guidance.device)
        return replace(condition, guidance=torch.where(inside, condition.guidance, 1.0))

    def branches(self, condition: Condition) -> Callable[[Tensor, Tensor, Condition], Tensor]:
        """`predict_velocity` of all rows and then of the guided rows' other branch, whose channels beyond the rule's
        are made those of the first, so that guiding leaves them as they are."""
        if self.rule.channels is None:
            return self.predict_velocity
        first, rows = self.rule.channels, (condition.guidance != 1).nonzero()[:, 0]

        def predict(x: Tensor, t: Tensor, both: Condition) -> Tensor:
            out = self.predict_velocity(x, t, both)
            positive, other = out[: len(condition)], out[len(condition) :]
            kept = positive[rows[: len(other)].to(out.device), first:]
            return torch.cat([positive, torch.cat([other[:, :first], kept], 1)])

        return predict

    def transition(self, state: State) -> Transition:
        if not self.rule.held:
            return super().transition(state)
        t = torch.tensor(state.plan.times, dtype=torch.float32)[state.step].to(state.x.device)
        decided = copy.copy(self)
        decided.rule = replace(self.rule, inside=everywhere, held=False)
        return decided.transition(replace(state, condition=self.limited(state.condition, t)))

    def draw(self, x1: Tensor, seeds: Tensor) -> Draw:
        """Times as the release draws them in training, and x0; both from the seeds alone."""
        times = [self.release.draw_time(stream(int(s), purpose="time")) for s in seeds.tolist()]
        return replace(super().draw(x1, seeds), time=torch.tensor(times, dtype=torch.float32, device=x1.device))

    def loss(self, x1: Tensor, condition: Condition, draw: Draw) -> Tensor:
        """|v(x_t, t) - target|^2, a mean over the elements of each image, (B,)."""
        x = interpolate(x1, draw.noise, draw.time)
        target = self.release.target(x1, draw.noise, draw.time)
        return (self.velocity(x, draw.time, condition) - target).pow(2).flatten(1).mean(1)

    def save(self, folder: str | Path) -> None:
        """FOLDER/model.safetensors under the release's keys, with what loading needs; an adapter is merged."""
        network = unwrapped(self.network)
        if adapters(network):
            network = copy.deepcopy(network)
            lora.merge(network)
        tensors = {self.release.prefix + name: value for name, value in network.state_dict().items()}
        save_weights(Path(folder) / "model.safetensors", tensors, {"kind": self.release.kind, **self.about})


@torch.no_grad()
def time_direction(generator: ClassFlow, images: Tensor, prompts: Sequence[Prompt], seeds: Tensor) -> float:
    """Correlation, -1 to 1, of the velocity with data - noise on real pictures (B, 3, H, W) in [0, 1].

    For trained weights: near 1 where time runs as this file says, below 0 where it is reversed. It takes a few
    pictures of known classes, and is the check to make once on weights that nobody here has seen.
    """
    x1 = generator.codec.encode(images, seeds).to(generator.device)
    draw, condition = generator.draw(x1, seeds), Condition(tuple(prompts), torch.ones(len(prompts)))
    v = generator.velocity(interpolate(x1, draw.noise, draw.time), draw.time, condition)
    return float(torch.corrcoef(torch.stack([v.flatten(), (x1 - draw.noise).flatten()]))[0, 1])
