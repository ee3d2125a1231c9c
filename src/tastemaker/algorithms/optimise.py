"""The optimiser's side of every training loop: one update, its averaged weights, and all that a resume needs.

There is no loop here. A loop in an algorithm calls `state.update(loss)` once per step and reads `state.step`; its
data and its noise are pure functions of (seed, state.step), so the state below is everything a run remembers. Where
several processes train (ranks.py), each gives the loss of its own rows, and the gradients are averaged; of weights
that are sharded, a state holds this process's parts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..ranks import average_gradients, laid_out, local, mean, sharded, whole
from .muon import Muon


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW (arXiv 1711.05101), with warm-up, clipping and averaged weights. A step is one call of `update`."""

    learning_rate: float = 1e-4
    """the highest step size"""
    weight_decay: float = 0.0
    """decoupled decay of matrices; vectors (biases, norms) are not decayed"""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's two averaging rates"""
    warmup_steps: int = 0
    """steps over which the step size rises linearly from 0"""
    cosine_steps: int = 0
    """0: constant after the warm-up; otherwise the step at which a half cosine has come down to 0"""
    max_grad_norm: float = 1.0
    """gradients longer than this are shortened to it; inf: never"""
    ema_decay: float = 0.0
    """averaging rate of the weights per optimiser step, such as 0.999; 0: no average is kept"""
    muon_scale: float = 0.0
    """above 0: Muon steps the hidden matrices, with this multiple of the step size, such as 5; 0: AdamW steps all"""
    accumulate: int = 1
    """steps whose gradients are averaged into one optimiser step"""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.accumulate < 1 or not 0 <= self.ema_decay < 1 or self.max_grad_norm <= 0:
            raise TastemakerError(
                "expected learning_rate > 0, accumulate >= 1, 0 <= ema_decay < 1 and max_grad_norm > 0, got "
                f"{self.learning_rate}, {self.accumulate}, {self.ema_decay} and {self.max_grad_norm}"
            )
        if 0 < self.cosine_steps <= self.warmup_steps:
            raise TastemakerError(
                f"cosine_steps ({self.cosine_steps}) must be larger than warmup_steps ({self.warmup_steps}), or 0"
            )


def constant(step: int, warmup: int) -> float:
    """The share of the highest step size at `step` (from 0): a linear rise, then 1."""
    return min(1.0, (step + 1) / (warmup + 1))


def cosine(step: int, warmup: int, total: int) -> float:
    """A linear rise over `warmup` steps, then half a cosine down to 0 at `total` and 0 afterwards."""
    progress = min(1.0, max(0, step - warmup) / (total - warmup))
    return constant(step, warmup) * (1 + math.cos(math.pi * progress)) / 2


def step_size(config: OptimiserConfig, step: int) -> float:
    if config.cosine_steps:
        return config.learning_rate * cosine(step, config.warmup_steps, config.cosine_steps)
    return config.learning_rate * constant(step, config.warmup_steps)


def bare(network: nn.Module) -> nn.Module:
    """The network inside the wrappers of torch.compile and of distributed training: the one place that unwraps."""
    while isinstance(inner := getattr(network, "_orig_mod", getattr(network, "module", None)), nn.Module):
        network = inner
    return network


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in bare(network).named_parameters() if p.requires_grad}


def rng_state() -> dict[str, Any]:
    """The global generators of torch, numpy and python, as tensors and plain values."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest]
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "python": random.getstate()}


def set_rng_state(state: dict[str, Any]) -> None:
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


@dataclass
class TrainingState:
    """What a run remembers between two steps. Made by `begin`; `network` is what loops call, wrapped or not."""

    network: nn.Module
    config: OptimiserConfig
    optimiser: torch.optim.Optimizer
    ema: dict[str, Tensor] | None  # float32, by parameter name
    step: int = 0
    _weights: dict[str, nn.Parameter] = field(default_factory=dict, repr=False)

    def update(self, loss: Tensor) -> dict[str, float]:
        """Backward, clip and, on every `accumulate`-th call, one optimiser step. loss: a scalar, already reduced over
        this process's rows; loss and gradient then become the means over the processes.

        Returns `loss`, `learning_rate` and `gradient_norm` (before clipping, of the gradients gathered so far).
        Raises TastemakerError where the loss or the gradient is not finite; the weights are then still those of
        the step before.
        """
        if loss.numel() != 1:
            raise TastemakerError(f"update needs a scalar loss, got shape {tuple(loss.shape)}; take its mean first")
        (loss / self.config.accumulate).backward()
        average_gradients(self._weights.values())  # those gathered before are equal everywhere, and stay
        applies = (self.step + 1) % self.config.accumulate == 0
        norm = self._gradient_norm(clip=applies)
        figures = mean({"loss": float(loss.detach())}) | {"gradient_norm": float(norm)}
        self._refuse_non_finite(figures)
        figures["learning_rate"] = step_size(self.config, self.step)
        if applies:
            self._apply(figures["learning_rate"])
        self.step += 1
        return figures

    def _gradient_norm(self, clip: bool) -> Tensor:
        limit = self.config.max_grad_norm if clip else math.inf
        return whole(nn.utils.clip_grad_norm_(self._weights.values(), limit))

    def _refuse_non_finite(self, figures: dict[str, float]) -> None:
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            self.optimiser.zero_grad(set_to_none=True)
            raise TastemakerError(
                f"step {self.step + 1}: {' and '.join(bad)} is not finite ({figures[bad[0]]}). Lower the learning "
                f"rate (now {step_size(self.config, self.step):.2g}), lengthen warmup_steps, or look at the data "
                "and rewards of this step; the weights are still those of the step before"
            )

    def _apply(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            done = self.step // self.config.accumulate  # optimiser steps before this one
            decay = min(self.config.ema_decay, (1 + done) / (10 + done))  # a short memory while it is young
            weights = [local(p.detach()).float() for p in self._weights.values()]
            torch._foreach_lerp_(list(self.ema.values()), weights, 1 - decay)

    @contextmanager
    def ema_weights(self) -> Iterator[nn.Module]:
        """The network with the averaged weights in it, put back on leaving; without an average, as it is."""
        if self.ema is None:
            yield self.network
            return
        kept = {name: local(p.detach()).clone() for name, p in self._weights.items()}
        _fill(self._weights, self.ema)
        try:
            yield self.network
        finally:
            _fill(self._weights, kept)

    def keep_average(self) -> None:
        """Put the averaged weights into the network for good: the training is over."""
        _fill(self._weights, self.ema or {n: p.detach() for n, p in self._weights.items()})

    def state_dict(self) -> dict[str, Any]:
        """Trained weights and buffers, optimiser, average, step, gradients under way, random generators.

        Tensors and plain values only. Frozen weights are left out: they are those that the run began with.
        """
        under_way = self.step % self.config.accumulate != 0
        gradients = {n: local(p.grad) for n, p in self._weights.items() if under_way and p.grad is not None}
        return {
            "weights": {n: local(p.detach()) for n, p in self._weights.items()},
            "buffers": dict(bare(self.network).named_buffers()),
            "optimiser": _own_moments(self.optimiser),
            "ema": self.ema,
            "step": self.step,
            "gradients": gradients,
            "rng": rng_state(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises TastemakerError where it is of another network."""
        buffers = dict(bare(self.network).named_buffers())
        _match("weights", self._weights, saved["weights"])
        _match("buffers", buffers, saved["buffers"])
        _match("averaged weights", self.ema or {}, saved["ema"] or {})
        _fill(self._weights, saved["weights"])
        _fill(buffers, saved["buffers"])
        _fill(self.ema or {}, saved["ema"] or {})
        _load_moments(self.optimiser, saved["optimiser"])
        for name, p in self._weights.items():
            gradient = saved["gradients"].get(name)
            p.grad = None if gradient is None else laid_out(gradient, p)
        self.step = saved["step"]
        set_rng_state(saved["rng"])


def begin(network: nn.Module, config: OptimiserConfig, hidden: Collection[str] = ()) -> TrainingState:
    """A fresh state at step 0. hidden: names of the weights that Muon steps where the config asks for it.

    Raises TastemakerError where the network has nothing to train, and where Muon, which needs whole matrices, would
    meet sharded ones.
    """
    weights = trainable(network)
    if not weights:
        raise TastemakerError("the network has no trainable weights; switch requires_grad on, or add an adapter")
    if hidden and config.muon_scale and any(sharded(p) for p in weights.values()):
        raise TastemakerError("Muon needs whole matrices: give optimiser.muon_scale=0, or train without shards")
    ema = {n: local(p.detach()).float().clone() for n, p in weights.items()} if config.ema_decay else None
    optimiser = _optimiser(weights, config, set(hidden) if config.muon_scale else set())
    return TrainingState(network, config, optimiser, ema, _weights=weights)


def _optimiser(weights: dict[str, nn.Parameter], config: OptimiserConfig, hidden: set[str]) -> torch.optim.AdamW:
    others = [p for name, p in weights.items() if name not in hidden]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "scale": 1.0},
        {"params": [weights[name] for name in sorted(hidden)], "momentum": 0.95, "scale": config.muon_scale},
    ]
    groups = [g for g in groups if g["params"]]
    how = {"fused": True} if all(p.is_cuda for p in weights.values()) else {"foreach": True}
    return (Muon if hidden else torch.optim.AdamW)(groups, config.learning_rate, config.betas, **how)


def _own_moments(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state, of sharded weights this process's parts."""
    saved = optimiser.state_dict()
    state = {key: {name: local(v) for name, v in one.items()} for key, one in saved["state"].items()}
    return {**saved, "state": state}


def _load_moments(optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    optimiser.load_state_dict(saved)
    for p, state in optimiser.state.items():
        if sharded(p):
            state.update({n: laid_out(v, p) for n, v in state.items() if v.shape == local(p).shape})


def _match(what: str, ours: dict[str, Any], theirs: dict[str, Tensor]) -> None:
    differing = [
        n for n in {**ours, **theirs} if n not in ours or n not in theirs or local(ours[n]).shape != theirs[n].shape
    ]
    if differing:
        raise TastemakerError(
            f"the saved {what} are of another network: {len(differing)} differ, among them "
            f"{', '.join(sorted(differing)[:4])}; build the network as the saved run did"
        )


def _fill(ours: dict[str, Any], theirs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in ours.items():
            local(value).copy_(local(theirs[name]))
