"""What the kinds of diffusers pipeline share: the loaded folder, its text cache, its codec, how it is saved.

A pipeline's components are called one by one, never its `__call__`, so that the trajectory, the noise and the
gradient are ours. diffusers itself is imported by the functions that need it. Letters: B batch, C H W a latent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..protocols import Condition
from ..randomness import noise
from . import diffusers_lora

Cache = dict[str, Tensor]  # (B, ...) each


@dataclass(frozen=True)
class Settings:
    """What the loader is told about a folder beside its own configuration."""

    size: tuple[int, int]  # height and width of the pictures in pixels
    sequence_length: int  # tokens of the T5 encoder; CLIP encoders always take their own 77
    flux_guidance: float  # fed to networks distilled for guidance, which only some Flux folders are


@dataclass(frozen=True)
class Family:
    """One kind of pipeline: which components it needs, how it encodes a text, how its network is called."""

    network: str  # the component that is trained
    needs: tuple[str, ...]  # components without which nothing works
    guidance: float  # the pipeline's own default
    steps: int
    sequence_length: int
    multiple: int  # latents' height and width must be a multiple of this
    encode: Callable[[Any, list[str], Settings], Cache]
    call: Callable[[nn.Module, Tensor, Tensor, Cache], Tensor]  # network, x, timestep (B,), cache -> output
    build: Callable[..., Any]  # folder -> generator
    codec: str = "vae"  # the component between pictures and what the network works on


class VaeCodec:
    """Pictures to latents x1 and back. The VAE's latent is z = gain x1 + offset; it works in float32."""

    def __init__(self, vae: nn.Module, size: tuple[int, int]):
        self.vae, self.size = vae, size
        config: Any = vae.config
        gain, offset = torch.tensor(1.0 / config.scaling_factor), torch.tensor(float(config.shift_factor or 0.0))
        if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
            gain, offset = gain * torch.tensor(config.latents_std), torch.tensor(config.latents_mean)
        self.gain, self.offset = gain.reshape(-1, 1, 1), offset.reshape(-1, 1, 1)  # (1 or C, 1, 1)

    @property
    def device(self) -> torch.device:
        return next(self.vae.parameters()).device

    @torch.no_grad()
    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, C, h, w): a sample of the posterior, its noise from each image's seed."""
        if tuple(images.shape[2:]) != self.size:
            raise TastemakerError(
                f"expected pictures of {self.size} pixels, got {tuple(images.shape[2:])}; resize them"
            )
        posterior = self.vae.encode(images.to(self.device, torch.float32) * 2 - 1).latent_dist  # type: ignore
        zero = torch.zeros_like(seeds)
        z = posterior.mean + posterior.std * noise(posterior.mean.shape[1:], seeds, zero, zero, "encode").to(
            self.device
        )
        return (z - self.offset.to(z)) / self.gain.to(z)

    def decode(self, x1: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), differentiable, not clamped."""
        x1 = x1.to(self.device, torch.float32)
        z = x1 * self.gain.to(x1) + self.offset.to(x1)
        return self.vae.decode(z, return_dict=False)[0] / 2 + 0.5  # type: ignore


@dataclass(frozen=True)
class PipelineFolder:
    """A loaded pipeline, with the family that knows how to call it."""

    pipeline: Any
    family: Family
    settings: Settings
    dtype: torch.dtype  # of the network and the text encoders

    @property
    def network(self) -> nn.Module:
        return getattr(self.pipeline, self.family.network)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        scale, (height, width) = self.pipeline.vae_scale_factor, self.settings.size
        return self.pipeline.vae.config.latent_channels, height // scale, width // scale

    @property
    def codec(self) -> VaeCodec:
        return VaeCodec(self.pipeline.vae, self.settings.size)

    @torch.no_grad()
    def encode(self, condition: Condition) -> Cache:
        """Each different text once; (B, ...) rows by lookup."""
        texts = [p.text for p in condition.prompts]
        distinct = list(dict.fromkeys(texts))
        rows = torch.tensor([distinct.index(text) for text in texts])
        cache = self.family.encode(self.pipeline, distinct, self.settings)
        return {name: value[rows.to(value.device)] for name, value in cache.items()}

    def call(self, network: nn.Module, x: Tensor, timestep: Tensor, cache: Any) -> Tensor:
        """The network in its own dtype between float32 latents. timestep (B,), native and possibly fractional."""
        cast = {name: value.to(self.dtype) for name, value in cache.items()}
        return self.family.call(network, x.to(self.dtype), timestep.float(), cast).float()

    def save(self, network: nn.Module, folder: str | os.PathLike) -> None:
        """The LoRA file that `pipeline.load_lora_weights(folder)` reads, or, where the whole network is tuned, a
        folder that `DiffusionPipeline.from_pretrained(folder)` reads. Nothing half-written is ever left."""
        network = unwrapped(network)
        if diffusers_lora.adapters(network):
            with partial_folder(Path(folder)) as partial:
                diffusers_lora.write(type(self.pipeline), self.family.network, network, partial)
                Path(folder).mkdir(parents=True, exist_ok=True)
                os.replace(partial / diffusers_lora.FILE, Path(folder) / diffusers_lora.FILE)
            return
        refuse_foreign(Path(folder))
        self.pipeline.register_modules(**{self.family.network: network})
        with partial_folder(Path(folder)) as partial:
            self.pipeline.save_pretrained(partial, safe_serialization=True)
            exchange(partial, Path(folder))


def unwrapped(network: nn.Module) -> nn.Module:
    """The module below the wrappers of distributed training and compilation."""
    while True:
        inner = getattr(network, "_orig_mod", getattr(network, "module", None))
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def refuse_foreign(folder: Path) -> None:
    """Only an empty place or an earlier pipeline folder is overwritten."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").exists()):
        raise TastemakerError(f"'{folder}' holds other files; save the pipeline to a new or empty folder")


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write in, gone afterwards whatever happens."""
    partial = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        raise TastemakerError(f"cannot write '{target}': {error}; make room or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def exchange(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target` by renames alone; where that fails, `target` is as it was."""
    old = partial.with_name(partial.name + ".old")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(partial, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
