"""The training grid of a DDPM-type network, in our time.

The network knows T noise levels abar_n = alphas_cumprod[n]; x_vp = sqrt(abar) x1 + sqrt(1 - abar) x0. With
alpha = sqrt(abar) and sigma = sqrt(1 - abar) that is the straight path at t = alpha / (alpha + sigma) in other units
(`paths.vp_time`). So timestep T - 1, where sampling starts, has a t a little above 0: the checkpoint's time starts
there. Letters: B batch, T training timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..protocols import Plan, Transition
from .paths import expand, vp_scale, vp_time
from .samplers import Velocity, ddim

ON_GRID = 0.01  # of a timestep; float32 times are off by less than a thousandth


@dataclass(frozen=True, eq=False)
class Grid:
    """times[n] is the t of timestep n; `end` is the t at which the last sampling step arrives."""

    times: Tensor  # (T,) float64, falling
    end: float  # 1, or times[0] where the folder says set_alpha_to_one = false

    def __len__(self) -> int:
        return len(self.times)

    @property
    def start(self) -> float:
        """The t of the noisiest level that the network was trained on; no plan begins before it."""
        return float(self.times[-1].float())

    def time(self, timestep: Tensor) -> Tensor:
        """Integer timesteps (B,) -> t (B,) float32; below 0 it is `end`."""
        n = timestep.long()
        t = self.times.to(n.device)[n.clamp(0, len(self) - 1)]
        return torch.where(n < 0, torch.full_like(t, self.end), t).float()

    def timestep(self, t: Tensor) -> Tensor:
        """t (B,) -> native timestep (B,) float32: the integer where t is on the grid, else linear in t between the
        two neighbours (networks take fractional timesteps); outside of the grid, its nearest end."""
        rising = self.times.flip(0).to(t.device)
        t = t.double().clamp(rising[0], rising[-1])
        above = torch.searchsorted(rising, t).clamp(1, len(self) - 1)
        fraction = (t - rising[above - 1]) / (rising[above] - rising[above - 1])
        n = len(self) - above - fraction
        return torch.where((n - n.round()).abs() < ON_GRID, n.round(), n).float()


def ddim_scheduler(scheduler: Any) -> Any:
    """diffusers' DDIMScheduler with the fields of the folder's scheduler, whatever class that is."""
    config = scheduler.config
    if "beta_schedule" not in config or type(scheduler).__name__.startswith("EDM"):
        raise TastemakerError(
            f"expected a scheduler with a beta schedule (DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, ...), "
            f"got {type(scheduler).__name__}"
        )
    if config.get("clip_sample") or config.get("thresholding"):
        raise TastemakerError(
            "the folder's scheduler clips the predicted sample, which is meant for pixels and not for latents; set "
            "clip_sample and thresholding to false in scheduler/scheduler_config.json"
        )
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(config)


def grid_of(scheduler: Any) -> Grid:
    """The grid of a folder's scheduler. Raises TastemakerError for epsilon prediction at a terminal abar of 0, where
    the data cannot be told from the answer."""
    native = ddim_scheduler(scheduler)
    abar = native.alphas_cumprod.double()
    if abar[-1] <= 0 and native.config.prediction_type == "epsilon":
        raise TastemakerError(
            "epsilon prediction cannot start at zero signal (rescale_betas_zero_snr); set it to false"
        )
    return Grid(vp_time(abar.sqrt()), float(vp_time(native.final_alpha_cumprod.double().sqrt())))


def native_timesteps(scheduler: Any, steps: int) -> Tensor:
    """(steps,) int64, falling: the folder's timestep_spacing and steps_offset (arXiv 2305.08891, Table 2)."""
    native = ddim_scheduler(scheduler)
    trained = native.config.num_train_timesteps
    if not 1 <= steps <= trained:
        raise TastemakerError(f"expected between 1 and {trained} steps, got {steps}")
    native.set_timesteps(steps)
    return native.timesteps.long().clamp(0, trained - 1)


@dataclass(frozen=True, eq=False)
class FixedStride:
    """DDIM as diffusers' DDIMScheduler takes it: a step from timestep n aims at n - stride, stride = T // steps.

    Where T / steps was rounded, the next grid point is another one, and diffusers goes on from there as if it had
    been the aim. `ddim` on the native plan aims at the next grid point; use this one to repeat diffusers' numbers.
    """

    grid: Grid
    stride: int

    def aim(self, t: Tensor) -> Tensor:
        return self.grid.time(self.grid.timestep(t).round() - self.stride)

    def __call__(self, velocity: Velocity, x: Tensor, t: Tensor, s: Tensor, eta: float) -> Transition:
        aim = self.aim(t)
        step = ddim(velocity, x, t, aim, eta)
        ratio = vp_scale(aim) / vp_scale(s)  # (B,) the same x_vp in the units of time s
        return Transition(expand(ratio, x) * step.mean, ratio * step.std)


def native_times(grid: Grid, timesteps: Tensor) -> tuple[float, ...]:
    return (*grid.time(timesteps).tolist(), float(torch.tensor(grid.end, dtype=torch.float32)))


def fixed_stride_plan(grid: Grid, timesteps: Tensor, eta: float) -> Plan:
    """The native grid with `FixedStride`; it ends where the last step aims."""
    sampler = FixedStride(grid, len(grid) // len(timesteps))
    times = grid.time(timesteps)
    return Plan(sampler, (*times.tolist(), *sampler.aim(times[-1:]).tolist()), eta)
