"""Weights on disk: safetensors with what is needed to build the network again beside them, in one file.

Nothing is ever unpickled. A file is written under another name and moved into place, so a reader sees all or nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import TastemakerError

C = TypeVar("C")


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any], half=False) -> str:
    """Write tensors with a JSON description into one safetensors file; returns its sha256.

    half: store floating-point tensors in float16 (they are read back as float32).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        k: (v.half() if half and v.is_floating_point() else v).detach().cpu().contiguous() for k, v in tensors.items()
    }
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(kept, partial, metadata={"description": json.dumps(description)})
        os.chmod(partial, 0o644)  # safetensors leaves it readable by its owner alone
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return file_hash(path)


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors in float32 and the description. Raises TastemakerError for a missing or foreign file."""
    tensors, metadata = read_safetensors(path)
    try:
        said = json.loads(metadata.get("description", ""))
    except json.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise TastemakerError(f"{path} has no description of its network; expected a file written by tastemaker")
    return in_float32(tensors), said


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors as they are stored, and the metadata. Raises TastemakerError for a missing or damaged file."""
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise TastemakerError(f"no weights at {path}; expected a .safetensors file") from None
    except SafetensorError as error:
        raise TastemakerError(f"{path} is not a whole safetensors file ({error}); copy or train it again") from None


def in_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32 where they are of floating point; others as they are."""
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def shape_of(config: type[C], said: Mapping[str, Any], origin: str, needs: Sequence[str] = ()) -> C:
    """The network's configuration from a description, which must also hold `needs`. Raises TastemakerError for one
    of another version."""
    network, known = said.get("network"), {f.name for f in fields(config)}  # type: ignore[arg-type]
    strange = sorted(set(network) - known) if isinstance(network, Mapping) else ["network"]
    strange += [name for name in needs if name not in said]
    if strange:
        raise TastemakerError(
            f"{origin} describes its network in a way that this version does not read ({', '.join(strange)}); load "
            "it with the version that wrote it, or train it again"
        )
    return config(**network)  # type: ignore[arg-type]


def fill(network: nn.Module, tensors: Mapping[str, Tensor], origin: str, assign: bool = False) -> None:
    """Load with a strict key and shape check, naming what does not fit. assign: the network was made on the meta
    device and takes the tensors themselves, without a copy."""
    expected = network.state_dict()
    missing, surplus = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    shapes = [k for k in expected if k in tensors and expected[k].shape != tensors[k].shape]
    if missing or surplus or shapes:
        said = [
            f"{len(v)} {what} ({', '.join(v[:3])})"
            for what, v in (("missing", missing), ("not known", surplus), ("of another shape", shapes))
            if v
        ]
        raise TastemakerError(f"{origin} does not fit the network: tensors {'; '.join(said)}")
    network.load_state_dict(dict(tensors), assign=assign)


def file_hash(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped(name: str) -> Path:
    """The path of a model that comes with the package."""
    return Path(str(resources.files("tastemaker") / "assets" / "models" / f"{name}.safetensors"))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
