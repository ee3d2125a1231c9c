"""How unlike the pictures of one prompt are: the mean distance between the features of two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError
from ..records import Interval
from .frechet import check_features
from .intervals import bootstrap_mean, paired_difference

Distance = Callable[[NDArray], NDArray]  # features (K, D) -> (K, K)


def cosine(features: NDArray) -> NDArray:
    """1 - cos, in [0, 2]; a row of zeros is at distance 1 from every other."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(np.finfo(np.float64).tiny)
    return 1 - unit @ unit.T


def euclidean(features: NDArray) -> NDArray:
    return np.linalg.norm(features[:, None] - features[None], axis=2)


def per_prompt(features: Any, prompts: Any, distance: Distance = cosine) -> NDArray:
    """(P,) mean distance over the pairs of each prompt, prompts in ascending order of their ids.

    features (B, D); prompts (B,) integer or string ids. NaN for a prompt with a single picture.
    """
    rows, ids = check_features(features).astype(np.float64), np.asarray(prompts)
    if ids.shape != (len(rows),):
        raise TastemakerError(f"expected one prompt id per row, got {ids.shape} ids for {len(rows)} rows")
    return np.array([mean_over_pairs(distance(rows[ids == one])) for one in np.unique(ids)])


def mean_over_pairs(distances: NDArray) -> float:
    above = distances[np.triu_indices(len(distances), 1)]
    return float(above.mean()) if len(above) else float("nan")


def diversity(features: Any, prompts: Any, distance: Distance = cosine) -> Interval:
    """The mean over prompts; the interval resamples prompts only, since a picture drawn twice would be at distance 0
    from itself. Prompts with one picture are left out with a warning."""
    values = per_prompt(features, prompts, distance)
    return bootstrap_mean(values, np.arange(len(values)))


def diversity_difference(a: Any, b: Any, prompts: Any, distance: Distance = cosine) -> Interval:
    """diversity(a) - diversity(b), features (B, D) of two generators on the same prompts."""
    a, b = per_prompt(a, prompts, distance), per_prompt(b, prompts, distance)
    return paired_difference(a, b, np.arange(len(a)))
