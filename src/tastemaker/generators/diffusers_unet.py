"""Stable Diffusion 1, 2 and XL: noise-predicting UNets of diffusers, seen as a flow.

State.x is on the straight path; the network is called with x_vp = vp_scale(t) x and the native timestep of t
(`diffusers_grid.Grid.timestep`), and its answer becomes a velocity: (x - eps) / t for epsilon, `paths.vp_to_velocity`
for v_prediction, (x1 - x) / (1 - t) for sample. Euler steps in the straight path's t are DDIM steps at eta 0.
Letters: B batch, C H W a latent, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnknownName
from ..protocols import Condition, Draw, Plan, State
from ..randomness import noise, stream
from . import diffusers_lora
from .diffusers_common import Cache, Family, PipelineFolder, Settings
from .diffusers_grid import fixed_stride_plan, grid_of, native_times, native_timesteps
from .flow import FlowGenerator
from .paths import eps_to_velocity, expand, interpolate, vp_scale, vp_to_velocity, x1_to_velocity
from .samplers import ddim


@dataclass(frozen=True)
class Prediction:
    """What a network answers: how that becomes a velocity, and what it is trained towards."""

    to_velocity: Callable[[Tensor, Tensor, Tensor], Tensor]  # answer, x on the straight path, t -> v
    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # x1, x0, alpha, sigma (B, 1, ...) -> answer


PREDICTIONS = {
    "epsilon": Prediction(eps_to_velocity, lambda x1, x0, alpha, sigma: x0),
    "v_prediction": Prediction(vp_to_velocity, lambda x1, x0, alpha, sigma: alpha * x0 - sigma * x1),
    "sample": Prediction(x1_to_velocity, lambda x1, x0, alpha, sigma: x1),
}


class DiffusersUNet(FlowGenerator):
    """A StableDiffusionPipeline or StableDiffusionXLPipeline folder.

    The default plan is DDIM on the folder's own grid. `loss` is the network's own training loss: the mean squared
    error of its native answer at an integer timestep, unweighted.
    """

    def __init__(self, folder: PipelineFolder):
        super().__init__(folder.network, folder.shape, folder.codec, guidance=folder.family.guidance)
        scheduler = folder.pipeline.scheduler
        kind = scheduler.config.get("prediction_type", "epsilon")
        if kind not in PREDICTIONS:
            raise UnknownName("prediction_type", kind, PREDICTIONS)
        self.folder, self.prediction, self.around = folder, PREDICTIONS[kind], diffusers_lora.as_it_is
        self.grid = grid_of(scheduler)
        self.plan = self.native_plan(folder.family.steps)

    @property
    def time_start(self) -> float:
        """The t of the last training timestep. The network says nothing about earlier times."""
        return self.grid.start

    # plans

    def native_plan(self, steps: int, sampler: Callable = ddim, eta: float = 0.0) -> Plan:
        """`sampler` on the timesteps of the folder's scheduler (spacing, offset), each step to the next of them."""
        timesteps = native_timesteps(self.folder.pipeline.scheduler, steps)
        return Plan(sampler, native_times(self.grid, timesteps), eta)

    def diffusers_plan(self, steps: int, eta: float = 0.0) -> Plan:
        """DDIM with the fixed stride of diffusers' DDIMScheduler, to repeat its numbers (see `FixedStride`)."""
        return fixed_stride_plan(self.grid, native_timesteps(self.folder.pipeline.scheduler, steps), eta)

    # between the straight path and the network's units

    def straight(self, x_vp: Tensor, t: Tensor) -> Tensor:
        """A latent of diffusers (B, C, H, W) at time t (B,) as State.x."""
        return x_vp / expand(vp_scale(t), x_vp)

    def finish(self, x: Tensor, t: Tensor) -> Tensor:
        """A State.x at time t as a latent of diffusers, which the codec takes for data at the last step."""
        return x * expand(vp_scale(t), x)

    def start(
        self, condition: Condition, seeds: Tensor, plan: Plan | None = None, branch: Tensor | None = None
    ) -> State:
        """As diffusers starts: x_vp is standard normal at the plan's first time."""
        state = super().start(condition, seeds, plan, branch)
        return replace(state, x=self.straight(state.x, torch.full_like(state.x[:, 0, 0, 0], state.plan.times[0])))

    def predict(self, x_vp: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """The network's own answer at x_vp (B, C, H, W) and native timestep (B,)."""
        with self.around(self.network):
            return self.folder.call(self.network, x_vp, timestep, self.prepare(condition).cache)

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        answer = self.predict(self.finish(x, t), self.grid.timestep(t), condition)
        return self.prediction.to_velocity(answer, x, t)

    # training

    def draw(self, x1: Tensor, seeds: Tensor) -> Draw:
        """A training timestep, uniform over the grid, as its t; and x0. Both from the seeds alone."""
        zero = torch.zeros_like(seeds)
        n = torch.tensor([int(stream(int(s), purpose="time").integers(len(self.grid))) for s in seeds.tolist()])
        x0 = noise(x1.shape[1:], seeds, zero, zero, "noise").to(x1.device)
        return Draw(self.grid.time(n).to(x1.device), x0)

    def loss(self, x1: Tensor, condition: Condition, draw: Draw) -> Tensor:
        """|network(x_vp, n) - target|^2, a mean over the elements of each image, (B,); n is the timestep nearest to
        draw.time and the target noise, v or data, as the folder's prediction_type says (arXiv 2006.11239, Eq. 14)."""
        n = self.grid.timestep(draw.time).round()
        t = self.grid.time(n)
        scale = vp_scale(t)
        alpha, sigma = expand(t * scale, x1), expand((1 - t) * scale, x1)
        x_vp = self.finish(interpolate(x1, draw.noise, t), t)
        error = self.predict(x_vp, n, condition) - self.prediction.target(x1, draw.noise, alpha, sigma)
        return error.pow(2).flatten(1).mean(1)

    # the folder

    def encode_text(self, condition: Condition) -> Cache:
        return self.folder.encode(condition)

    def reference(self) -> FlowGenerator:
        """The base network: the adapter switched off, or a frozen copy where there is none."""
        return diffusers_lora.reference(self, super().reference)

    def save(self, folder: str) -> None:
        """A LoRA file or a whole pipeline folder, as `PipelineFolder.save` says."""
        self.folder.save(self.network, folder)


# Stable Diffusion 1 and 2


def encode_sd(pipeline: Any, texts: list[str], settings: Settings) -> Cache:
    text, _ = pipeline.encode_prompt(texts, pipeline.text_encoder.device, 1, False)
    return {"text": text}  # (B, L, D)


def call_sd(network: nn.Module, x: Tensor, timestep: Tensor, cache: Cache) -> Tensor:
    return network(x, timestep, encoder_hidden_states=cache["text"], return_dict=False)[0]


# Stable Diffusion XL


def encode_sdxl(pipeline: Any, texts: list[str], settings: Settings) -> Cache:
    """The empty text is zeros where the folder says force_zeros_for_empty_prompt, as the pipeline guides."""
    text, _, pooled, _ = pipeline.encode_prompt(
        texts, None, pipeline.text_encoder_2.device, 1, do_classifier_free_guidance=False
    )
    if pipeline.config.get("force_zeros_for_empty_prompt"):
        said = torch.tensor([text != "" for text in texts]).to(text)  # (B,)
        text, pooled = text * said[:, None, None], pooled * said[:, None]
    height, width = settings.size
    sizes = torch.tensor([[height, width, 0, 0, height, width]]).to(text).expand(len(texts), -1)
    return {"text": text, "pooled": pooled, "sizes": sizes}  # (B, L, D), (B, D), (B, 6)


def call_sdxl(network: nn.Module, x: Tensor, timestep: Tensor, cache: Cache) -> Tensor:
    added = {"text_embeds": cache["pooled"], "time_ids": cache["sizes"]}
    return network(x, timestep, encoder_hidden_states=cache["text"], added_cond_kwargs=added, return_dict=False)[0]


SD = Family(
    network="unet",
    needs=("unet", "vae", "scheduler", "text_encoder", "tokenizer"),
    guidance=7.5,
    steps=50,
    sequence_length=77,
    multiple=1,
    encode=encode_sd,
    call=call_sd,
    build=DiffusersUNet,
)
SDXL = Family(
    network="unet",
    needs=("unet", "vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    guidance=5.0,
    steps=50,
    sequence_length=77,
    multiple=1,
    encode=encode_sdxl,
    call=call_sdxl,
    build=DiffusersUNet,
)
