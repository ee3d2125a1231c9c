"""`diffusers:PATH`: a pipeline folder on disk as a generator. Nothing is downloaded and nothing is unpickled."""

from __future__ import annotations

import json
import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import MissingExtra, TastemakerError, UnknownName
from . import diffusers_lora
from .diffusers_amused import AMUSED, DiffusersAmused
from .diffusers_common import Family, PipelineFolder, Settings
from .diffusers_flow import FLUX, SD3, DiffusersFlow
from .diffusers_unet import SD, SDXL, DiffusersUNet

KINDS: dict[str, Family] = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionXLPipeline": SDXL,
    "StableDiffusion3Pipeline": SD3,
    "FluxPipeline": FLUX,
    "AmusedPipeline": AMUSED,
}
LIBRARIES = ("diffusers", "transformers")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    path: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora: str | os.PathLike | None = None,
    gradient_checkpointing: bool = False,
    sequence_length: int | None = None,
    flux_guidance: float = 3.5,
    variant: str | None = None,
    seed: int = 0,
) -> DiffusersFlow | DiffusersUNet | DiffusersAmused:
    """A StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux or Amused pipeline folder as a generator.

    size: pixels of a picture, a side or (height, width); None: the folder's own. dtype: of the network and the text
    encoders; the VAE, the latents and every adapter weight stay float32. lora_rank: train a fresh adapter of this
    rank (scale lora_alpha / lora_rank, 1 by default) in place of the whole network; lora: go on with the adapter of
    an earlier `save` in this folder. sequence_length: T5 tokens. flux_guidance: for Flux networks distilled for
    guidance. variant: of the weight files, such as "fp16". seed: of a fresh adapter.

    Raises MissingExtra without diffusers, transformers or peft, and TastemakerError for a folder that is not a
    pipeline, is of another kind, lacks a component, or cannot be read.
    """
    path = Path(path)
    index = read_index(path)
    family = KINDS[index["_class_name"]]
    check_components(path, index, family)
    if dtype not in DTYPES:
        raise UnknownName("dtype", dtype, DTYPES)
    adapted = lora_rank is not None or lora is not None
    require("diffusers", "transformers", *["peft"] * adapted)
    pipeline = read_pipeline(path, index["_class_name"], DTYPES[dtype], variant).to(device)
    codec = getattr(pipeline, family.codec).float()
    settings = Settings(
        picture_size(pipeline, family, size), sequence_length or family.sequence_length, flux_guidance
    )
    network = getattr(pipeline, family.network)
    freeze(pipeline, network)
    if lora is not None:
        diffusers_lora.read(pipeline, network, lora)
    elif lora_rank is not None:
        diffusers_lora.add(network, lora_rank, lora_alpha, seed)
    if gradient_checkpointing:
        network.enable_gradient_checkpointing()
        if codec._supports_gradient_checkpointing:
            codec.enable_gradient_checkpointing()
    return family.build(PipelineFolder(pipeline, family, settings, DTYPES[dtype]))


def require(*packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtra(package, "models") from error


def read_index(path: Path) -> dict[str, Any]:
    """model_index.json, of a kind that is supported."""
    file = path / "model_index.json"
    if not file.is_file():
        raise TastemakerError(f"expected a diffusers pipeline folder with model_index.json, found none in '{path}'")
    try:
        index = json.loads(file.read_text())
        kind = index["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise TastemakerError(f"cannot read '{file}': it is not the index of a diffusers pipeline") from error
    if kind not in KINDS:
        raise TastemakerError(f"pipeline kind '{kind}' in '{path}' is not supported; supported: {', '.join(KINDS)}")
    return index


def check_components(path: Path, index: dict[str, Any], family: Family) -> None:
    """Every needed component is named in the index and has its folder, and none asks for code of elsewhere."""
    for name, entry in index.items():
        if isinstance(entry, list) and name != "safety_checker" and entry[0] not in (None, *LIBRARIES):
            raise TastemakerError(
                f"component '{name}' in '{path}' is of the library '{entry[0]}'; supported: {', '.join(LIBRARIES)}"
            )
    for name in family.needs:
        entry = index.get(name)
        if not isinstance(entry, list) or None in entry:
            raise TastemakerError(f"the pipeline folder '{path}' has no component '{name}' in model_index.json")
        if not (path / name).is_dir():
            raise TastemakerError(f"the pipeline folder '{path}' lacks the folder '{name}'; copy it whole")


def read_pipeline(path: Path, kind: str, dtype: torch.dtype, variant: str | None) -> Any:
    """The pipeline of diffusers, from safetensors alone. The safety checker is not loaded."""
    import diffusers

    unchecked: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer diffusers says dtype for torch_dtype
            return getattr(diffusers, kind).from_pretrained(
                str(path),
                torch_dtype=dtype,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                **(unchecked if kind == "StableDiffusionPipeline" else {}),
            )
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TastemakerError(
            f"cannot read the pipeline folder '{path}': {reason}; weights must be whole safetensors files"
        ) from error


def picture_size(pipeline: Any, family: Family, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) in pixels; None is the folder's own size."""
    scale = pipeline.vae_scale_factor
    if size is None:
        native = (
            getattr(getattr(pipeline, family.network).config, "sample_size", None) or pipeline.default_sample_size
        )
        height, width = (side * scale for side in both_sides(native))
    else:
        height, width = both_sides(size)
    multiple = scale * family.multiple
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise TastemakerError(
            f"expected a picture size that is a multiple of {multiple} pixels, got {height} x {width}"
        )
    return height, width


def both_sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def freeze(pipeline: Any, network: torch.nn.Module) -> None:
    """Only the network can be trained."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(component is network).eval()
