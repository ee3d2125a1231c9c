"""Trajectories of every generator that answers in velocities: flow matching, and diffusion seen as a flow.

A family gives `predict_velocity(x, t, condition)` and the shape of x; this file gives it the verbs of
`protocols.Generator`. Conditional flow matching loss: Lipman et al., arXiv 2210.02747, Eq. 14 with the straight path.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..protocols import Codec, Condition, Draw, Plan, State, Transition
from ..randomness import noise, stream
from .guidance import guided, negative_of
from .paths import interpolate, velocity_to_x1
from .samplers import euler


def uniform_times(steps: int, start: float = 0.0, end: float = 1.0) -> tuple[float, ...]:
    """steps + 1 evenly spaced times."""
    return tuple(start + (end - start) * i / steps for i in range(steps)) + (end,)


def shifted_times(steps: int, shift: float) -> tuple[float, ...]:
    """steps + 1 times, denser near the noise the larger shift is: t = u / (u + shift (1 - u)) of evenly spaced u.
    Esser et al. 2024 (arXiv 2403.03206), Eq. 23, in our direction of time; shift 1 changes nothing."""
    return tuple(u / (u + shift * (1 - u)) for u in uniform_times(steps))


class PixelCodec:
    """Pixel-space generators work on [-1, 1]."""

    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        return images * 2 - 1

    def decode(self, x1: Tensor) -> Tensor:
        return x1 / 2 + 0.5


class FlowGenerator:
    """The verbs of a generator, written on `predict_velocity`.

    network: the module that is trained; shape: of one x, without the batch; plan: the default sampling plan;
    time_mean, time_std: the logit-normal from which `draw` takes t (Esser et al., arXiv 2403.03206, Eq. 19).
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        codec: Codec,
        plan: Plan | None = None,
        guidance: float = 1.0,
        time_mean: float = 0.0,
        time_std: float = 1.0,
    ):
        self.network, self.shape, self.codec = network, tuple(shape), codec
        self.plan = plan or Plan(euler, uniform_times(20))
        self.guidance, self.time_mean, self.time_std = guidance, time_mean, time_std

    # what a family fills in

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say how it predicts a velocity")

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        """Tensors (B, ...) for `condition.cache`."""
        return {}

    def save(self, folder: str) -> None:
        raise TypeError(f"{type(self).__name__} does not say how it is saved")

    # the verbs

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def prepare(self, condition: Condition) -> Condition:
        """The condition with its text encoded; encoding twice costs nothing."""
        if condition.cache:
            return condition
        negative = negative_of(condition) if (condition.guidance != 1).any() else None
        return replace(
            condition, cache=self.encode_text(condition), negative=self.prepare(negative) if negative else None
        )

    def start(
        self, condition: Condition, seeds: Tensor, plan: Plan | None = None, branch: Tensor | None = None
    ) -> State:
        """Pure noise at plan.times[0]. seeds (B,) int64; branch (B,) tells candidates of one seed apart."""
        if len(seeds) != len(condition):
            raise TastemakerError(f"expected one seed per prompt, got {len(seeds)} seeds, {len(condition)} prompts")
        zero = torch.zeros(len(seeds), dtype=torch.int64)
        branch = zero if branch is None else branch
        x = noise(self.shape, seeds, branch, zero, "start").to(self.device)
        return State(x, zero, seeds, branch, zero, zero.float(), self.prepare(condition), plan or self.plan)

    def velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """(B, ...), (B,) -> (B, ...), not guided."""
        return self.predict_velocity(x, t, self.prepare(condition))

    def guided_velocity(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        condition = self.prepare(condition)
        return lambda x, t: guided(self.predict_velocity, self.prepare, x, t, condition)

    def transition(self, state: State) -> Transition:
        """The distribution of each particle's next x: what `advance` draws from and `log_prob` reads."""
        times = torch.tensor(state.plan.times, dtype=torch.float32)
        t, s = times[state.step].to(state.x.device), times[state.step + 1].to(state.x.device)
        return state.plan.sampler(self.guided_velocity(state.condition), state.x, t, s, state.plan.eta)

    def advance(self, state: State, noise: Tensor | None = None, grad: bool = False) -> State:
        """One step of every particle. noise (B, ...): in place of the seeds' own draw."""
        if state.done.any():
            raise TastemakerError(
                f"cannot advance past the last of {state.plan.steps} steps; drop particles that are done"
            )
        with torch.set_grad_enabled(grad):
            step = self.transition(state)
            x = step.mean
            if (step.std > 0).any():
                draw = state.noise("step") if noise is None else noise
                x = x + step.std.reshape(-1, *[1] * (x.ndim - 1)) * draw
        return replace(state, x=x, step=state.step + 1)

    def log_prob(self, before: State, after: State) -> Tensor:
        """log p(after | before), a sum in nats, (B,). Its gradient is the score function's."""
        step = self.transition(before)
        if (step.std <= 0).any():
            raise TastemakerError(
                "a deterministic step has no density: sample with `sde`, or with `ddim` at eta > 0, and leave out "
                "a last step whose noise is 0"
            )
        std = step.std.reshape(-1, *[1] * (step.mean.ndim - 1)).expand_as(step.mean)
        return torch.distributions.Normal(step.mean, std).log_prob(after.x).flatten(1).sum(1)

    def preview(self, state: State, grad: bool = False) -> Tensor:
        """What the picture would be if the velocity stayed: decode(x1), (B, 3, H, W), not clamped."""
        with torch.set_grad_enabled(grad):
            t = torch.tensor(state.plan.times, dtype=torch.float32)[state.step].to(state.x.device)
            if (t >= state.plan.times[-1]).all():
                return self.codec.decode(self.finish(state.x, t))
            v = self.guided_velocity(state.condition)(state.x, t)
            return self.codec.decode(velocity_to_x1(v, state.x, t))

    def finish(self, x: Tensor, t: Tensor) -> Tensor:
        """From the last state to what the codec decodes; families whose grid stops short of t = 1 rescale."""
        return x

    def draw(self, x1: Tensor, seeds: Tensor) -> Draw:
        """t = sigmoid(time_mean + time_std n) and x0, both from the seeds alone."""
        zero = torch.zeros_like(seeds)
        n = torch.tensor([stream(int(s), purpose="time").standard_normal() for s in seeds.tolist()])
        time = torch.sigmoid(self.time_mean + self.time_std * n).float()
        return Draw(time.to(x1.device), noise(x1.shape[1:], seeds, zero, zero, "noise").to(x1.device))

    def loss(self, x1: Tensor, condition: Condition, draw: Draw) -> Tensor:
        """|v(x_t, t) - (x1 - x0)|^2, a mean over the elements of each image, (B,)."""
        x = interpolate(x1, draw.noise, draw.time)
        return (self.velocity(x, draw.time, condition) - (x1 - draw.noise)).pow(2).flatten(1).mean(1)

    def reference(self) -> FlowGenerator:
        """A frozen copy."""
        frozen = copy.copy(self)
        frozen.network = copy.deepcopy(self.network).requires_grad_(False).eval()
        return frozen
