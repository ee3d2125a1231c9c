"""One number, array or name of ours beside the official one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    what: str  # the array or figure compared
    absolute: float  # largest |ours - expected|
    relative: float  # largest |ours - expected| / |expected|, over the entries where expected is not 0
    tolerance: str  # in words or as atol, rtol
    passed: bool


def close(what: str, ours: Any, expected: Any, atol: float = 0.0, rtol: float = 0.0) -> Comparison:
    """Every entry within atol + rtol |expected|, of the same shape; NaN equals NaN and infinity itself.

    ours, expected: numbers, lists, arrays or detached tensors of one shape.
    """
    tolerance = " + ".join([f"{atol:g}"] * (atol > 0) + [f"{rtol:g} rel"] * (rtol > 0)) or "equal"
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    if ours.shape != expected.shape:
        shapes = f"{what}: shape {ours.shape}, expected {expected.shape}"
        return Comparison(shapes, np.inf, np.inf, tolerance, False)
    same = (ours == expected) | (np.isnan(ours) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(ours - expected))
    error = np.nan_to_num(error, nan=np.inf, posinf=np.inf)
    size = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    relative = np.divide(error, size, out=np.zeros_like(error), where=size > 0)
    return Comparison(what, largest(error), largest(relative), tolerance, bool((error <= atol + rtol * size).all()))


def equal(what: str, ours: Any, expected: Any) -> Comparison:
    """The same value: token ids, names, counts."""
    same = ours == expected
    return Comparison(what, 0.0 if same else np.inf, 0.0 if same else np.inf, "equal", bool(same))


def largest(values: np.ndarray) -> float:
    return float(values.max()) if values.size else 0.0
