"""Moments of real pictures, kept in a file so that an encoder looks at them once.

Our own file is safetensors. For every feature space it holds `SPACE/count`, `SPACE/mean` (D,) and `SPACE/covariance`
(D, D) in float64, over N - 1, and where features were kept `SPACE/features` (N, D) float32; its metadata says which
model, weights and preprocessing made each. A file is used only with the encoder that made it.

Others' files are `.npz` with `mu` (D,) and `sigma` (D, D), as those of ADM's evaluator (which adds `mu_s`, `sigma_s`
and pictures, not read here), of torch-fidelity's statistics and of JiT. They name neither network nor count.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..data.files import whole_file
from ..encoders.protocol import Encoder
from ..errors import TastemakerError, UnknownName
from ..records import Provenance
from .frechet import Moments, check_features

OURS, FOREIGN = ".safetensors", ".npz"
KEY = "tastemaker-moments"  # of the metadata
SYMMETRIC = 1e-5  # of the largest entry: what float32 leaves of a covariance's symmetry


@dataclass(frozen=True)
class Reference:
    """What is known of the real pictures in one feature space."""

    moments: Moments
    count: int | None  # None: the file does not say how many pictures there were
    features: NDArray | None = None  # (N, D) float32, where they are at hand


def is_moments_file(path: str | Path) -> bool:
    """Whether `path` is named like a file of moments rather than like pictures."""
    return Path(path).suffix.lower() in (OURS, FOREIGN)


def save_references(path: str | Path, kept: Mapping[str, Reference], made_by: Mapping[str, Provenance]) -> None:
    """Every feature space in one file, whole or not at all; features too, where a reference has them.

    Raises TastemakerError where the name does not end in .safetensors, or the file cannot be written.
    """
    if Path(path).suffix != OURS:
        raise TastemakerError(f"expected a file name that ends in {OURS} to keep moments in, got {path}")
    tensors: dict[str, NDArray] = {}
    for space, one in kept.items():
        tensors[f"{space}/count"] = np.array([one.moments.count])
        tensors[f"{space}/mean"], tensors[f"{space}/covariance"] = one.moments.mean, one.moments.covariance
        if one.features is not None:
            tensors[f"{space}/features"] = np.ascontiguousarray(one.features, np.float32)
    about = {KEY: json.dumps({space: asdict(made_by[space]) for space in kept})}
    with whole_file(path) as partial:
        save_file(tensors, partial, about)


def read_reference(path: str | Path, space: str, encoder: Encoder) -> Reference:
    """The moments of one feature space, from our own file or another's.

    Raises UnknownName where our file lacks the space, and TastemakerError where it cannot be read, is not one of
    moments, or was made by another model, other weights or another preprocessing.
    """
    if Path(path).suffix.lower() == FOREIGN:
        return _foreign(path, space, encoder.dim)
    try:
        with safe_open(path, "np") as file:
            said = json.loads((file.metadata() or {}).get(KEY, "null"))
            if said is None:
                raise TastemakerError(f"{path} holds no moments; make them with: evaluate frechet --save-moments")
            if space not in said:
                raise UnknownName("feature space", space, said, f"{path} holds only these; measure others anew")
            _same_encoder(path, space, Provenance(**said[space]), encoder.provenance)
            found = {key: file.get_tensor(f"{space}/{key}") for key in ("count", "mean", "covariance")}
            features = file.get_tensor(f"{space}/features") if f"{space}/features" in file.keys() else None  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        if isinstance(error, TastemakerError):
            raise
        raise TastemakerError(f"{path} holds no readable moments ({error})") from error
    count = int(found["count"][0])
    return Reference(moments_of(found["mean"], found["covariance"], count), count, features)


def moments_of(mean: NDArray, covariance: NDArray, count: int | None) -> Moments:
    """From mean (D,) and covariance (D, D) over N - 1. Where the count is not known the covariance is taken as of
    full rank, which D + 1 pictures are the fewest for."""
    count = len(mean) + 1 if count is None else count
    mean, covariance = (np.asarray(x, np.float64) for x in (mean, covariance))
    return Moments(count, mean, (covariance + covariance.T) * ((count - 1) / 2))


def _same_encoder(path: str | Path, space: str, before: Provenance, now: Provenance) -> None:
    for part, name in (("model", "model"), ("weight_hash", "weights"), ("preprocessing", "preprocessing")):
        was, is_now = getattr(before, part), getattr(now, part)
        if was != is_now:
            raise TastemakerError(
                f"the moments of '{space}' in {path} are of other {name}: made by '{was}', this encoder has "
                f"'{is_now}'; measure the reference pictures again with --save-moments"
            )


def _foreign(path: str | Path, space: str, dim: int) -> Reference:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not {"mu", "sigma"} <= set(file.files):
                raise TastemakerError(f"expected `mu` and `sigma` in {path}, it holds {', '.join(file.files) or '-'}")
            mean, covariance = file["mu"], file["sigma"]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, TastemakerError):
            raise
        raise TastemakerError(f"{path} holds no readable moments ({error})") from error
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise TastemakerError(
            f"expected moments of '{space}', `mu` ({dim},) and `sigma` ({dim}, {dim}); {path} has {mean.shape} and "
            f"{covariance.shape}: name the feature space that it was made in by --space"
        )
    check_features(covariance)
    check_features(mean[None])
    if np.abs(covariance - covariance.T).max() > SYMMETRIC * np.abs(covariance).max():
        raise TastemakerError(f"`sigma` in {path} is not symmetric, so it is no covariance")
    return Reference(moments_of(mean, covariance, None), None)
