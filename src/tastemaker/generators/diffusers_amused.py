"""aMUSEd of diffusers (Patil et al. 2024, arXiv 2401.01808): a masked-token generator over a U-ViT, CLIP's text
encoder and a VQ-GAN.

The network is also told the picture's width and height, no cropping, and an aesthetic score of 6, as the pipeline
does by default. The plan is that of AmusedScheduler: its schedule, and `unmasking.amused` from a temperature of 2.
Letters: B batch, N = h w tokens, V codes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..protocols import Condition, Plan
from . import diffusers_lora
from .diffusers_common import Cache, Family, PipelineFolder, Settings
from .masked import MaskedGenerator
from .unmasking import MASK, amused, times_of
from .vq import require_codes

TEMPERATURE, AESTHETIC = 2.0, 6.0


class VqCodec:
    """Pictures to tokens and back by a VQModel of diffusers, in float32. Nothing here has a gradient."""

    def __init__(self, vqvae: Any, size: tuple[int, int], grid: tuple[int, int]):
        """size: pixels, height and width; grid: tokens."""
        if not vqvae.config.lookup_from_codebook:
            raise TastemakerError(
                "expected a VQModel with lookup_from_codebook, as aMUSEd has it; change its config.json"
            )
        self.vqvae, self.size, self.grid = vqvae, size, grid

    @property
    def device(self) -> torch.device:
        return next(self.vqvae.parameters()).device

    @torch.no_grad()
    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N) int64: the nearest codes. Raises TastemakerError for another size."""
        if tuple(images.shape[2:]) != self.size:
            raise TastemakerError(
                f"expected pictures of {self.size} pixels, got {tuple(images.shape[2:])}; resize them"
            )
        z = self.vqvae.encode(images.to(self.device, torch.float32), return_dict=False)[0]
        return self.vqvae.quantize(z)[2][2].reshape(len(images), -1)

    @torch.no_grad()
    def decode(self, x1: Tensor) -> Tensor:
        """(B, N) -> (B, 3, H, W), not clamped. Raises TastemakerError for a code outside of the codebook."""
        require_codes(x1, self.vqvae.config.num_vq_embeddings)
        shape = (len(x1), *self.grid, self.vqvae.quantize.vq_embed_dim)
        return self.vqvae.decode(x1.to(self.device), force_not_quantize=True, return_dict=False, shape=shape)[0]


class DiffusersAmused(MaskedGenerator):
    """An AmusedPipeline folder."""

    def __init__(self, folder: PipelineFolder):
        pipeline, (height, width) = folder.pipeline, folder.settings.size
        self.folder, self.around = folder, diffusers_lora.as_it_is
        require_trainable(folder.network)
        self.grid = height // pipeline.vae_scale_factor, width // pipeline.vae_scale_factor
        self.codes = folder.network.config.codebook_size  # type: ignore[union-attr]
        codec = VqCodec(pipeline.vqvae, folder.settings.size, self.grid)
        plan, tokens = self.native_plan(folder.family.steps), self.grid[0] * self.grid[1]
        super().__init__(folder.network, tokens, codec, plan, folder.family.guidance)

    def native_plan(self, steps: int) -> Plan:
        """That of the folder's scheduler."""
        schedule = self.folder.pipeline.scheduler.config.masking_schedule
        return Plan(amused, times_of(schedule, steps), temperature=TEMPERATURE)

    def encode_text(self, condition: Condition) -> Cache:
        return self.folder.encode(condition)

    def predict_logits(self, tokens: Tensor, t: Tensor, condition: Condition) -> Tensor:
        masked = self.folder.pipeline.scheduler.config.mask_token_id
        ids = torch.where(tokens == MASK, masked, tokens).unflatten(1, self.grid)
        cast = {name: value.to(self.folder.dtype) for name, value in condition.cache.items()}
        with self.around(self.network):
            out = self.network(ids, cast["text"], cast["pooled"], cast["about"])  # (B, V, h, w)
        return out.flatten(2).transpose(1, 2).float()

    def reference(self) -> MaskedGenerator:
        """The base network: the adapter switched off, or a frozen copy where there is none."""
        return diffusers_lora.reference(self, super().reference)

    def save(self, folder: str) -> None:  # type: ignore[override]
        """A LoRA file or a whole pipeline folder, as `PipelineFolder.save` says."""
        self.folder.save(self.network, folder)


def require_trainable(network: nn.Module) -> None:
    """Raise TastemakerError where a pass with gradient would fail inside diffusers."""
    if getattr(network, "gradient_checkpointing", False):
        raise TastemakerError("diffusers cannot checkpoint aMUSEd's UVit2DModel; leave gradient_checkpointing off")


def encode(pipeline: Any, texts: list[str], settings: Settings) -> Cache:
    """text (B, 77, D): the last state but one; pooled (B, D'): projected; about (B, 5): what else it is told."""
    ids = pipeline.tokenizer(
        texts,
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=pipeline.tokenizer.model_max_length,
    ).input_ids
    out = pipeline.text_encoder(ids.to(pipeline.text_encoder.device), output_hidden_states=True, return_dict=True)
    height, width = settings.size
    about = torch.tensor([[width, height, 0, 0, AESTHETIC]], device=out.text_embeds.device).expand(len(texts), -1)
    return {"text": out.hidden_states[-2], "pooled": out.text_embeds, "about": about}


def _no_time(network: nn.Module, x: Tensor, timestep: Tensor, cache: Cache) -> Tensor:
    raise TypeError("aMUSEd is called with tokens, by DiffusersAmused.predict_logits")


AMUSED = Family(
    network="transformer",
    needs=("transformer", "vqvae", "scheduler", "text_encoder", "tokenizer"),
    guidance=10.0,
    steps=12,
    sequence_length=77,
    multiple=2,
    encode=encode,
    call=_no_time,
    build=DiffusersAmused,
    codec="vqvae",
)
