"""Files of released class generators: the weights, the settings that their shapes do not tell, the VAE beside."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..encoders.official import PICKLED, assemble, read_json, read_tensors, weight_file
from ..errors import TastemakerError
from .diffusers_common import VaeCodec
from .diffusers_load import require

N = TypeVar("N", bound=nn.Module)
VAES = tuple(f"{name}/config.json" for name in ("vae", "sd-vae-ft-mse", "sd-vae-ft-ema"))  # beside the weights


@dataclass(frozen=True)
class Checkpoint:
    """A state dict, and what is said beside it: the constructor's arguments under the names of the official code."""

    path: Path
    tensors: Mapping[str, Tensor]
    said: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike, names: Sequence[str], inside: str, prefix: str = "") -> Checkpoint:
    """A weight file, or the one in a folder: the first of `names`, else the only one there.

    inside: the key of the averaged weights in a training checkpoint; a bare state dict is read as it is. prefix: of
    the keys, taken away where all have it. Settings come from the file itself where `save` wrote it, else from a
    config.json beside it. Raises TastemakerError where nothing can be read. Only plain tensors are unpickled, and
    the training script's arguments, a Namespace of plain values that is not used.
    """
    file = weight_file(_only_file(Path(path), names), names, "this kind")
    with torch.serialization.safe_globals([argparse.Namespace]):
        tensors = read_tensors(file, inside)
    if prefix and all(key.startswith(prefix) for key in tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    config = file.with_name("config.json")
    return Checkpoint(file, tensors, description(file) or (read_json(config) if config.is_file() else {}))


def _only_file(path: Path, names: Sequence[str]) -> Path:
    """The one weight file of a folder; the folder itself where it has one of `names`, several files, or none."""
    if not path.is_dir() or any((path / name).is_file() for name in names):
        return path
    found = [p for p in sorted(path.iterdir()) if p.suffix in (".safetensors", *PICKLED)]
    return found[0] if len(found) == 1 else path


def description(path: Path) -> dict[str, Any]:
    """What our own `save` wrote into a safetensors file; empty for other files."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get("description", "{}"))
    except (SafetensorError, ValueError):  # read_tensors says what is wrong with it
        return {}
    return said if isinstance(said, dict) else {}


def network_of(make: Callable[[], N], checkpoint: Checkpoint, fixed: Sequence[str] = ()) -> N:
    """The network with the checkpoint's tensors, in evaluation mode, trainable but for parameters whose names begin
    with one of `fixed`. Raises TastemakerError naming missing and unknown keys."""
    network = assemble(make, checkpoint.tensors, str(checkpoint.path))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(fixed)))
    return network


def square_side(places: int, checkpoint: Checkpoint) -> int:
    """The side of a square of tokens."""
    side = math.isqrt(places)
    if side * side != places:
        raise TastemakerError(f"{checkpoint.path} has positions for {places} tokens, which make no square")
    return side


def heads_of(width: int, checkpoint: Checkpoint, known: Mapping[int, int], key: str = "num_heads") -> int:
    """Attention heads, which no shape tells: as said beside the weights, or as the release's networks of this width
    have them. Raises TastemakerError for another width of which nothing is said."""
    heads = checkpoint.said.get(key, known.get(width))
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise TastemakerError(
            f'{checkpoint.path}: how many attention heads has a network of width {width}? Write {{"{key}": NUMBER}} '
            f"into {checkpoint.path.with_name('config.json').name} beside it; known are widths "
            f"{', '.join(map(str, known))}"
        )
    return heads


def place(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files below the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def vae_folder(checkpoint: Checkpoint, given: str | os.PathLike | None) -> Path:
    """As given, as a saved generator remembers it, or beside the weights. Raises TastemakerError where it is not."""
    near = place(checkpoint.path.parent, VAES)
    wanted = given or checkpoint.said.get("vae") or (near and near.parent)
    if wanted is None or not (Path(wanted) / "config.json").is_file():
        where = f"'{wanted}' is none" if wanted else f"there is none beside {checkpoint.path}"
        raise TastemakerError(
            f"expected the folder of a diffusers AutoencoderKL, such as stabilityai/sd-vae-ft-mse, and {where}; put "
            f"it there as '{Path(VAES[0]).parent}', or give its path as `vae`"
        )
    return Path(wanted).resolve()


def vae_codec(folder: Path, latent_side: int) -> VaeCodec:
    """The VAE of a folder, frozen, float32, for latents of so many pixels a side. Raises MissingExtra without
    diffusers, TastemakerError for a folder that cannot be read."""
    require("diffusers")
    from diffusers import AutoencoderKL

    try:
        vae: Any = AutoencoderKL.from_pretrained(str(folder), use_safetensors=True, local_files_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TastemakerError(f"cannot read the VAE in '{folder}': {reason}; expected safetensors") from error
    side = latent_side * 2 ** (len(vae.config.block_out_channels) - 1)
    return VaeCodec(vae.float().eval().requires_grad_(False), (side, side))
