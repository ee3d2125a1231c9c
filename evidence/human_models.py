"""Models of human scores on frozen features, and the baselines beside them. Each takes the scores of training
pictures and gives scores of all; figures are made from those of pictures that it did not see.

Kernel ridge regression (Saunders, Gammerman & Vovk 1998) with Gaussian kernels on groups of features, and their
product with the prompt's kernel beside them, so that what is wanted may depend on the words. A first level reads
quality, alignment and the generator's setting off pixels and prompt; a second learns the wanted score from what the
first says, by its leave-one-out values on the training pictures (stacking, Wolpert 1992). Targets are centred by
prompt, since only differences within a prompt say anything about a pair. No model is told which generator made a
picture that it is measured on. Features are standardised over all pictures, which takes no scores. Letters: N
pictures, T targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.correlation import spearman

from .human_features import SIDES, Features

FIRST, SECOND, JOINT = 0.1, 1.0, 0.3  # ridges, added to kernels whose diagonal is 1


@dataclass(frozen=True)
class Kernels:
    """(N, N) each, float32."""

    seen: Tensor  # of pictures, of how they fit the words (see zero_shot.py), and both with the prompt
    prompt: Tensor

    @classmethod
    def of(cls, features: Features) -> Kernels:
        groups = [*np.split(features.stages, len(SIDES), axis=1), features.low]
        picture = torch.stack([gaussian(standardised(group)) for group in groups]).mean(0)
        prompt = gaussian(standardised(features.prompts))
        return cls(with_prompt((4 * picture + gaussian(standardised(features.fits))) / 5, prompt), prompt)


def with_prompt(kernel: Tensor, prompt: Tensor) -> Tensor:
    """What holds for every prompt, and what for like ones."""
    return (kernel + kernel * prompt) / 2


def standardised(rows: NDArray) -> Tensor:
    """(N, D) float32, within 5 deviations."""
    return torch.from_numpy(((rows - rows.mean(0)) / (rows.std(0) + 1e-6)).clip(-5, 5).astype(np.float32))


def gaussian(x: Tensor) -> Tensor:
    """(N, N): exp(-d^2 / median d^2)."""
    square = (x * x).sum(1)
    distance = (square[:, None] + square - 2 * x @ x.T).clamp_min(0)
    return torch.exp(-distance / distance.median())


def centred(targets: NDArray, prompts: NDArray, rows: NDArray) -> NDArray:
    """(n, T) of the given rows less the mean of their prompt among them. targets: (N, T)."""
    group = np.unique(prompts[rows], return_inverse=True)[1]
    sums = np.zeros((group.max() + 1, targets.shape[1]))
    np.add.at(sums, group, targets[rows])
    return targets[rows] - (sums / np.bincount(group)[:, None])[group]


def fitted(kernel: Tensor, targets: NDArray, train: NDArray, ridge: float) -> NDArray:
    """Kernel ridge regression of (n, T): (N, T), for training rows what the others say of them (leave-one-out)."""
    inside = kernel[train][:, train].double()
    inside.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(inside))
    wanted = torch.from_numpy(targets).double()
    weights = inverse @ wanted
    found = kernel[:, train].double() @ weights
    found[train] = wanted - weights / inverse.diagonal()[:, None]
    return found.numpy()


def pixels_and_prompt(data: Any, scores: NDArray, train: NDArray, target: str) -> NDArray:
    """The model that is measured: the mean of both levels, each in its own deviations."""
    every = np.stack([data.table.score(name) for name in ("quality", "alignment")], 1)
    settings = np.eye(data.settings.max() + 1)[data.settings]
    targets = np.concatenate([every, settings], 1)
    first = fitted(data.kernels.seen, centred(targets, data.prompts, train), train, FIRST)
    own, wanted = first[:, ("quality", "alignment").index(target)], centred(scores[:, None], data.prompts, train)
    said = gaussian(standardised(np.concatenate([first, data.features.fits], 1)))
    second = fitted(with_prompt(said, data.kernels.prompt), wanted, train, SECOND)[:, 0]
    joint = fitted((said + data.kernels.seen) / 2, wanted, train, JOINT)[:, 0]
    return sum(level / level[train].std() for level in (own, second, joint))


def generator_only(data: Any, scores: NDArray, train: NDArray, target: str) -> NDArray:
    """The mean score of the picture's generator setting: no pixels, no prompt."""
    found = np.full(data.settings.max() + 1, scores[train].mean())
    for k in np.unique(data.settings[train]):
        found[k] = scores[train][data.settings[train] == k].mean()
    return found[data.settings]


def plain_ridge(data: Any, scores: NDArray, train: NDArray, target: str) -> NDArray:
    """Linear ridge on the usual 1,280 features and the prompt's vector, the figure to beat."""
    parts = [standardised(rows) for rows in (data.features.pooled, data.features.prompts)]
    rows = torch.cat([part / part.shape[1] ** 0.5 for part in parts], 1)
    return fitted(rows @ rows.T, (scores[train] - scores[train].mean())[:, None], train, 1.0)[:, 0]


def frechet_correlation(data: Any, scores: NDArray, counts: NDArray) -> float:
    """Spearman, over generator settings, of people's mean score with minus the Frechet distance of the setting's
    feature maps to ImageNet's, prompts counted as given; NaN where a setting has no picture.

    The distance is of Gaussians with independent channels: the means and variances that the network's last norm keeps
    of the photographs that it was trained on, so no set of real pictures is needed.
    """
    weight = counts[data.prompts].astype(np.float64)
    mean, variance = data.features.reference.astype(np.float64)
    ours, theirs = [], []
    for k in range(data.settings.max() + 1):
        rows = np.flatnonzero((data.settings == k) & (weight > 0))
        if not len(rows):
            return float("nan")
        share = weight[rows] / weight[rows].sum()
        means, variances = data.features.head[rows].astype(np.float64).transpose(1, 0, 2)
        m = share @ means
        v = share @ variances + share @ (means - m) ** 2
        ours.append(-((m - mean) ** 2 + v + variance - 2 * np.sqrt(v * variance)).sum())
        theirs.append(share @ scores[rows])
    return spearman(ours, theirs)
