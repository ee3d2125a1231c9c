"""Fréchet distance between two sets of features, each seen as a Gaussian (Dowson & Landau 1982; Heusel et al.,
arXiv 1706.08500, Eq. 6):  |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

With S = F F^T the trace of the root is the nuclear norm of F_a^T F_b, the sum of its singular values. That keeps
full accuracy where a covariance is singular, where the square root of a matrix does not, and it needs no multiple of
the identity added (1e-6 on the diagonal moves a distance of 1.2 by 1e-4). All in float64, covariances over N - 1.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..encoders.protocol import Encoder, feature_batches
from ..errors import TastemakerError

ROWS = 8192  # rows of features held in float64 at a time
STRIPE = 256  # rows of a triangular product
TRUSTED = 1e-7  # relative error of the distance up to which the fast eigenvalue form is believed
EPS, TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)


@dataclass
class Moments:
    """Count, mean and scatter of features; its size does not depend on how many were seen."""

    count: int
    mean: NDArray  # (D,) float64
    scatter: NDArray  # (D, D) float64, the sum of (x - mean)(x - mean)^T

    @classmethod
    def empty(cls, dim: int) -> Moments:
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: Any) -> Moments:
        """Of features (N, D), any float type, tensor or array."""
        return cls.empty(check_features(features).shape[1]).update(features)

    @property
    def covariance(self) -> NDArray:  # (D, D)
        if self.count < 2:
            raise TastemakerError(f"a covariance needs at least 2 feature rows, got {self.count}")
        return self.scatter / (self.count - 1)

    def update(self, features: Any) -> Moments:
        """Take in features (B, D); returns itself. Raises TastemakerError on another width or on NaN."""
        features = check_features(features, len(self.mean))
        for i in range(0, len(features), ROWS):
            self.absorb_rows(features[i : i + ROWS])
        return self

    def absorb_rows(self, features: NDArray) -> None:
        """As `absorb`, with the step between the means as one more row, so that one product is the whole update."""
        count = len(features)
        rows = np.empty((count + 1, len(self.mean)))
        rows[:-1] = features
        mean = rows[:-1].mean(0)
        rows[:-1] -= mean
        rows[-1] = (mean - self.mean) * np.sqrt(self.count * count / (self.count + count))
        self.scatter += rows.T @ rows
        self.mean = self.mean + (mean - self.mean) * (count / (self.count + count))
        self.count += count

    def absorb(self, other: Moments) -> None:
        """Chan, Golub & LeVeque 1979, Eq. 2.1: two sets' moments from those of each."""
        total, shift = self.count + other.count, other.mean - self.mean
        self.scatter += other.scatter + np.outer(shift * (self.count * other.count / total), shift)
        self.mean, self.count = self.mean + shift * (other.count / total), total

    def save(self, path: str | os.PathLike) -> None:
        """As safetensors."""
        save_file({"count": np.array([self.count]), "mean": self.mean, "scatter": self.scatter}, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Moments:
        """Raises TastemakerError where the file is not one that `save` wrote."""
        try:
            stored = load_file(path)
            return cls(int(stored["count"][0]), stored["mean"], stored["scatter"])
        except (OSError, SafetensorError, KeyError) as error:
            raise TastemakerError(f"{path} holds no moments ({error}); make it with Moments.save") from error


def merge(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts' features together, as if one process had seen them."""
    parts = list(parts)
    dims = {len(p.mean) for p in parts}
    if len(dims) != 1:
        raise TastemakerError(f"expected moments of one width to merge, got widths {sorted(dims)}")
    whole = Moments.empty(dims.pop())
    for part in parts:
        if part.count:
            whole.absorb(part)
    return whole


def moments_of_images(encoder: Encoder, batches: Iterable[Any]) -> Moments:
    """Of image batches (b, 3, H, W) in [0, 1] in an encoder's space, a batch at a time."""
    moments = Moments.empty(encoder.dim)
    for features in feature_batches(encoder, batches):
        moments.update(features)
    return moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """>= 0, in squared units of the features. Raises TastemakerError where widths differ or one saw under 2 rows."""
    if len(a.mean) != len(b.mean):
        raise TastemakerError(f"expected features of one space, got widths {len(a.mean)} and {len(b.mean)}")
    return combine(a.mean - b.mean, factor(a), factor(b))


def frechet_distance_of_features(a: Any, b: Any) -> float:
    """The same from features (N, D) and (M, D). With fewer rows than columns it works on the centred rows themselves,
    which is faster and more exact than going through a singular covariance."""
    a, b = check_features(a), check_features(b)
    check_features(b, a.shape[1])
    (a_mean, a_factor), (b_mean, b_factor) = (mean_and_factor(x) for x in (a, b))
    return combine(a_mean - b_mean, a_factor, b_factor)


def combine(shift: NDArray, a: NDArray, b: NDArray) -> float:
    """shift (D,); factors a (D, R), b (D, Q) with covariances a a^T, b b^T."""
    apart = shift @ shift + np.vdot(a, a) + np.vdot(b, b)
    product = cross(a, b) if a.shape[1] >= b.shape[1] else cross(b, a)
    values = np.linalg.eigvalsh(product.T @ product).clip(0)  # the squares of the singular values
    distance = apart - 2 * np.sqrt(values).sum()
    if 2 * root_error(values) > TRUSTED * distance:
        distance = apart - 2 * np.linalg.svd(product, compute_uv=False).sum()
    return max(0.0, float(distance))


def cross(a: NDArray, b: NDArray) -> NDArray:
    """a^T b; of two Cholesky factors, a third of the work, for row k of either ends at column k."""
    dim = len(a)
    if a.shape != (dim, dim) or b.shape != (dim, dim) or np.triu(a, 1).any() or np.triu(b, 1).any():
        return a.T @ b
    product = np.zeros((dim, dim))
    for k in range(0, dim, STRIPE):
        rows, columns = slice(k, k + STRIPE), slice(0, k + STRIPE)
        product[columns, columns] += a[rows, columns].T @ b[rows, columns]
    return product


def root_error(values: NDArray) -> float:
    """How far the sum of sqrt(values) may be off: a solver's eigenvalues err by about eps of the largest, which
    matters where they are small. Singular values themselves would err by eps, at three times the cost."""
    error = 4 * EPS * values.max(initial=0.0)
    return float(np.minimum(np.sqrt(error), error / np.sqrt(values.clip(EPS * error + TINY))).sum())


def mean_and_factor(features: NDArray) -> tuple[NDArray, NDArray]:
    """(D,) and F (D, R) with F F^T the covariance."""
    if len(features) > features.shape[1]:
        moments = Moments.of(features)
        return moments.mean, factor(moments)
    if len(features) < 2:
        raise TastemakerError(f"a covariance needs at least 2 feature rows, got {len(features)}")
    rows = features.astype(np.float64)
    mean = rows.mean(0)
    return mean, (rows - mean).T / np.sqrt(len(rows) - 1)


def factor(moments: Moments) -> NDArray:
    """F (D, R) with F F^T the covariance: Cholesky's where the covariance has full rank, else from eigenvectors."""
    covariance = moments.covariance
    if moments.count > len(covariance):
        with contextlib.suppress(np.linalg.LinAlgError):
            root = np.linalg.cholesky(covariance)
            pivots = root.diagonal() ** 2
            if pivots.min() > noise_floor(len(root)) * pivots.max():
                return root
    return eigen_factor(covariance, moments.count - 1)


def eigen_factor(covariance: NDArray, rank: int) -> NDArray:
    """From at most `rank` eigenvectors: N rows span no more than N - 1, and what an eigenvalue solver finds beyond is
    rounding, whose square root is not small."""
    values, vectors = np.linalg.eigh(covariance)  # ascending
    keep = values > noise_floor(len(values)) * max(0.0, values[-1])
    keep[: max(0, len(values) - rank)] = False
    return vectors[:, keep] * np.sqrt(values[keep])


def noise_floor(dim: int) -> float:
    """The relative size below which an eigenvalue of a (dim, dim) covariance is rounding."""
    return 4 * dim**0.5 * EPS


def check_features(features: Any, dim: int | None = None) -> NDArray:
    """(N, D) as an array, on the host, finite."""
    array = features.detach().cpu().float() if getattr(features, "dtype", None) == torch.bfloat16 else features
    array = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if array.ndim != 2 or (dim is not None and array.shape[1] != dim):
        raise TastemakerError(f"expected features (N, {dim or 'D'}), got shape {array.shape}")
    if not np.isfinite(array.sum(dtype=np.float64)) and not np.isfinite(array).all():
        raise TastemakerError(
            "features hold NaN or infinity: find the pictures whose features failed, leave them out"
        )
    return array
