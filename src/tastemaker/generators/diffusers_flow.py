"""Stable Diffusion 3 and Flux: rectified flow transformers of diffusers, seen from our side of time.

Theirs: sigma = 1 is noise, x = (1 - sigma) data + sigma noise, the network answers noise - data and is told
1000 sigma. Ours: t = 1 - sigma and v = data - noise, so v = -network(x, 1000 (1 - t)); x is the same
(Esser et al., arXiv 2403.03206). Letters: B batch, C H W a latent, N tokens of 2 by 2 latents, L text tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..protocols import Condition, Plan
from . import diffusers_lora
from .diffusers_common import Cache, Family, PipelineFolder, Settings
from .flow import FlowGenerator
from .samplers import euler


class DiffusersFlow(FlowGenerator):
    """A StableDiffusion3Pipeline or FluxPipeline folder. The loss is the plain velocity error of FlowGenerator with
    t from the logit-normal (0, 1) of the SD3 paper; no weighting beside it."""

    def __init__(self, folder: PipelineFolder, first_sigmas: Callable[[int], list[float] | None]):
        super().__init__(folder.network, folder.shape, folder.codec, guidance=folder.family.guidance)
        self.folder, self.first_sigmas, self.around = folder, first_sigmas, diffusers_lora.as_it_is
        self.plan = self.native_plan(folder.family.steps)

    @property
    def time_start(self) -> float:
        """The least t that the network was trained on: pure noise."""
        return 0.0

    def native_plan(self, steps: int, sampler: Callable = euler, eta: float = 0.0) -> Plan:
        """The sigmas of the folder's scheduler (shift or dynamic shift, and whatever else it sets) as our times."""
        if steps < 1:
            raise TastemakerError(f"expected 1 step or more, got {steps}")
        height, width = self.shape[1:]
        sigmas = scheduler_sigmas(
            self.folder.pipeline.scheduler, steps, self.first_sigmas(steps), height * width // 4
        )
        return Plan(sampler, tuple((1 - sigmas.double()).float().tolist()), eta)

    def predict(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """The network's own answer, noise - data. timestep (B,) = 1000 sigma."""
        with self.around(self.network):
            return self.folder.call(self.network, x, timestep, self.prepare(condition).cache)

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        scale = self.folder.pipeline.scheduler.config.num_train_timesteps
        return -self.predict(x, scale * (1 - t), condition)

    def encode_text(self, condition: Condition) -> Cache:
        return self.folder.encode(condition)

    def reference(self) -> FlowGenerator:
        """The base network: the adapter switched off, or a frozen copy where there is none."""
        return diffusers_lora.reference(self, super().reference)

    def save(self, folder: str) -> None:
        """A LoRA file or a whole pipeline folder, as `PipelineFolder.save` says."""
        self.folder.save(self.network, folder)


def scheduler_sigmas(scheduler: Any, steps: int, first: list[float] | None, tokens: int) -> Tensor:
    """(steps + 1,) from about 1 to 0, as diffusers' FlowMatchEulerDiscreteScheduler makes them for `tokens`."""
    config = scheduler.config
    if "use_dynamic_shifting" not in config or config.get("stochastic_sampling") or config.get("invert_sigmas"):
        raise TastemakerError(
            f"expected a FlowMatchEulerDiscreteScheduler without stochastic_sampling or invert_sigmas, got "
            f"{type(scheduler).__name__}; change scheduler/scheduler_config.json of the folder"
        )
    from diffusers import FlowMatchEulerDiscreteScheduler

    fresh = FlowMatchEulerDiscreteScheduler.from_config(config)
    fresh.set_timesteps(None if first else steps, sigmas=first, mu=dynamic_shift(config, tokens))
    return fresh.sigmas


def dynamic_shift(config: Any, tokens: int) -> float:
    """mu of Flux's time shift: a line in the number of image tokens."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    bottom, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return bottom + (top - bottom) * (tokens - low) / (high - low)


# Stable Diffusion 3


def encode_sd3(pipeline: Any, texts: list[str], settings: Settings) -> Cache:
    text, _, pooled, _ = pipeline.encode_prompt(
        texts,
        None,
        None,
        device=pipeline.text_encoder.device,
        do_classifier_free_guidance=False,
        max_sequence_length=settings.sequence_length,
    )
    return {"text": text, "pooled": pooled}  # (B, L, D), (B, D)


def call_sd3(network: nn.Module, x: Tensor, timestep: Tensor, cache: Cache) -> Tensor:
    return network(
        hidden_states=x,
        timestep=timestep,
        encoder_hidden_states=cache["text"],
        pooled_projections=cache["pooled"],
        return_dict=False,
    )[0]


# Flux


def encode_flux(pipeline: Any, texts: list[str], settings: Settings) -> Cache:
    text, pooled, _ = pipeline.encode_prompt(
        texts, None, device=pipeline.text_encoder.device, max_sequence_length=settings.sequence_length
    )
    cache = {"text": text, "pooled": pooled}
    if pipeline.transformer.config.guidance_embeds:
        cache["guidance"] = torch.full((len(texts),), settings.flux_guidance, device=text.device)
    return cache


def call_flux(network: nn.Module, x: Tensor, timestep: Tensor, cache: Cache) -> Tensor:
    height, width = x.shape[2:]
    packed = network(
        hidden_states=pack(x),
        timestep=timestep / 1000,
        guidance=cache.get("guidance"),
        encoder_hidden_states=cache["text"],
        pooled_projections=cache["pooled"],
        txt_ids=x.new_zeros(cache["text"].shape[1], 3),
        img_ids=positions(height // 2, width // 2).to(x),
        return_dict=False,
    )[0]
    return unpack(packed, height, width)


def pack(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, 4 C): 2 by 2 latents side by side, channel first."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`."""
    b, _, d = tokens.shape
    x = tokens.reshape(b, height // 2, width // 2, d // 4, 2, 2)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(b, d // 4, height, width)


def positions(rows: int, columns: int) -> Tensor:
    """(rows columns, 3): 0, row, column of each image token."""
    return torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float())


def _theirs(steps: int) -> None:
    return None


def _evenly(steps: int) -> list[float]:
    return [1 - i * (1 - 1 / steps) / max(steps - 1, 1) for i in range(steps)]


SD3 = Family(
    network="transformer",
    needs=("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    guidance=7.0,
    steps=28,
    sequence_length=256,
    multiple=2,
    encode=encode_sd3,
    call=call_sd3,
    build=partial(DiffusersFlow, first_sigmas=_theirs),
)
FLUX = Family(
    network="transformer",
    needs=("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    guidance=1.0,
    steps=28,
    sequence_length=512,
    multiple=2,
    encode=encode_flux,
    call=call_flux,
    build=partial(DiffusersFlow, first_sigmas=_evenly),
)
