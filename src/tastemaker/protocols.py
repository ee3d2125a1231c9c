"""The contracts between rooms. Conventions, stated once:

Time        t = 0 is noise, t = 1 is data; x_t = t x1 + (1 - t) x0 and the velocity is v = x1 - x0.
Images      float32 (B, 3, H, W) in [0, 1] between rooms; latents and tokens live inside a generator.
Rewards     float32 (B,), higher is better; a reward that failed is NaN, never 0.
Randomness  an argument: one seed per image, and image k is the same alone or in any batch.
Letters     B batch, K samples per prompt, R rewards, T steps, N tokens, V vocabulary, D width, C H W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .batch import Batch
from .randomness import mix, noise
from .records import Prompt, Provenance


@dataclass(frozen=True)
class Condition(Batch):
    """What is asked for. `negative` None means the null condition; `guidance` 1 means none (see guidance.py)."""

    prompts: tuple[Prompt, ...]
    guidance: Tensor  # (B,)
    targets: Tensor | None = None  # (B, R) wanted rewards, NaN = not said
    negative: Condition | None = None
    cache: Mapping[str, Tensor] = field(default_factory=dict)  # (B, ...) filled by Generator.prepare

    def __len__(self) -> int:
        return len(self.prompts)

    @classmethod
    def of(cls, prompts: Sequence[str | Prompt], guidance: float = 1.0, **more: Any) -> Condition:
        return cls(tuple(Prompt.of(p) for p in prompts), torch.full((len(prompts),), float(guidance)), **more)

    def null(self) -> Condition:
        """As many rows that ask for nothing."""
        targets = None if self.targets is None else torch.full_like(self.targets, float("nan"))
        return Condition((Prompt(""),) * len(self), torch.ones_like(self.guidance), targets)

    @classmethod
    def concatenate(cls, batches: Sequence[Condition]) -> Condition:
        """Rows after rows. Where some have targets or a negative and others none, these get what None means; a
        cache that not all have is dropped, to be prepared again."""
        parts = list(batches)
        wished = next((p.targets for p in parts if p.targets is not None), None)
        if wished is not None:
            none = [wished.new_full((len(p), wished.shape[1]), float("nan")) for p in parts]
            parts = [replace(p, targets=n if p.targets is None else p.targets) for p, n in zip(parts, none)]
        if any(p.negative is not None for p in parts):
            parts = [replace(p, negative=p.null() if p.negative is None else p.negative) for p in parts]
        if any(p.cache.keys() != parts[0].cache.keys() for p in parts):
            parts = [replace(p, cache={}) for p in parts]
        return super().concatenate(parts)


@dataclass(frozen=True)
class Transition:
    """One step's distribution: Normal(mean, std), std 0 where the step is deterministic."""

    mean: Tensor  # (B, ...)
    std: Tensor  # (B,)


@dataclass(frozen=True)
class Plan:
    """How a trajectory runs; read by `advance` and `log_prob` alike."""

    sampler: Callable[..., Any]  # a function of generators.samplers, or of generators.unmasking
    times: tuple[float, ...]  # T + 1 values, from (near) 0 = noise up to 1 = data
    eta: float = 0.0  # strength of the noise that a stochastic sampler adds; its docstring gives the unit
    temperature: float = 1.0  # of masked-token draws

    @property
    def steps(self) -> int:
        return len(self.times) - 1


@dataclass(frozen=True)
class State(Batch):
    """A batch of particles on their way. A value: every verb returns a new one."""

    x: Tensor  # (B, ...) float32, or token ids
    step: Tensor  # (B,) int64, index into plan.times
    seeds: Tensor  # (B,) int64
    branch: Tensor  # (B,) int64, 0 unless forked
    forks: Tensor  # (B,) int64, how often this line was forked, so that no two children share a branch
    log_weight: Tensor  # (B,)
    condition: Condition
    plan: Plan
    memory: Mapping[str, Tensor] = field(default_factory=dict)  # per particle: history of multistep samplers

    def __len__(self) -> int:
        return len(self.x)

    @property
    def done(self) -> Tensor:  # (B,) bool
        return self.step >= self.plan.steps

    def fork(self, k: int) -> State:
        """Each particle k times, children side by side. Child 0 goes on as its parent would have."""
        children = self[torch.arange(len(self)).repeat_interleave(k)]
        child = torch.arange(k).repeat(len(self))
        words = zip(*(v.tolist() for v in (children.branch, children.step, children.forks, child)))
        branch = torch.where(child == 0, children.branch, torch.tensor([mix(*w) for w in words]))
        return replace(children, branch=branch, forks=children.forks + 1)

    def noise(self, purpose: str, like: Tensor | None = None) -> Tensor:
        like = self.x if like is None else like
        return noise(like.shape[1:], self.seeds, self.branch, self.step, purpose).to(like.device)


@dataclass(frozen=True)
class Draw(Batch):
    """The randomness of one loss evaluation, made outside the loss so that several networks share it."""

    time: Tensor  # (B,) in [0, 1]
    noise: Tensor  # (B, ...) x0, or for masked tokens the mask

    def __len__(self) -> int:
        return len(self.time)


class Codec(Protocol):
    """Between images in [0, 1] and what the network works on. The differentiable decode is not clamped."""

    def encode(self, images: Tensor, seeds: Tensor) -> Tensor: ...
    def decode(self, x1: Tensor) -> Tensor: ...


class Generator(Protocol):
    """What makes pictures. Flow and diffusion add `velocity(x, t, condition) -> (B, ...)`, masked-token
    generators `logits(tokens, condition) -> (B, N, V)`; these and `loss` are never guided."""

    @property
    def network(self) -> nn.Module: ...  # the only thing wrapped for distributed training, called by its forward

    codec: Codec
    plan: Plan  # the default

    def prepare(self, condition: Condition) -> Condition: ...
    def start(
        self, condition: Condition, seeds: Tensor, plan: Plan | None = None, branch: Tensor | None = None
    ) -> State: ...
    def advance(self, state: State, noise: Tensor | None = None, grad: bool = False) -> State: ...
    def preview(self, state: State, grad: bool = False) -> Tensor: ...
    def draw(self, x1: Tensor, seeds: Tensor) -> Draw: ...
    def loss(self, x1: Tensor, condition: Condition, draw: Draw) -> Tensor: ...
    def log_prob(self, before: State, after: State) -> Tensor: ...
    def reference(self) -> Generator: ...
    def save(self, folder: str) -> None: ...


@runtime_checkable
class Reward(Protocol):
    """A picture and its prompt in, one number out, higher is better."""

    name: str
    differentiable: bool
    range: tuple[float, float]
    provenance: Provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor: ...  # (B,)


class Verifier(Reward, Protocol):
    """A reward that also judges previews; probabilities in [0, 1]."""

    def clear(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor: ...  # (B,)
    def potential(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor: ...  # (B,)
    def critique(self, images: Tensor, prompts: Sequence[Prompt]) -> list[str]: ...
    def judge(self, images: Tensor, prompts: Sequence[Prompt], questions: Sequence[str]) -> Tensor: ...  # (B, Q)
