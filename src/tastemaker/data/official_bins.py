"""Bins as the released code of MIRO makes them (arXiv 2510.25897; commit 547003a), for models trained with it.

Its quantiles are those of the distinct scores, so scores on a coarse grid, as half precision gives, get bins of
nearly one width, not of one mass; the outermost edges are set to 0 and 1 and all are sorted again, whatever the
scores are; a NaN spoils all edges, and a NaN asked for is past the last one. `bins.py` does none of this.
Letters: N scores, B bins, E edges.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unique_quantile_edges(scores: Tensor, bins: int = 64) -> Tensor:
    """(N,) -> (E,) float32, rising, E <= B + 1: quantiles of the distinct scores; of equal width where there are
    fewer distinct scores than edges."""
    return _at(scores, torch.linspace(0, 1, bins + 1))


def width_edges(scores: Tensor, bins: int = 64) -> Tensor:
    """(N,) -> (E,) float32, rising: equal steps from the least to the greatest score."""
    return _closed(_even(scores, bins + 1))


def refined_quantile_edges(scores: Tensor, bins: int = 64, last: int = 4, factor: int = 4) -> Tensor:
    """As `unique_quantile_edges`, with each of the `last` bins split into `factor` of equal share: (E,),
    E <= B + 1 + last (factor - 1)."""
    coarse = torch.linspace(0, 1, bins + 1)
    split = [
        torch.linspace(float(a), float(b), factor + 1)[1:] for a, b in zip(coarse[-last - 1 : -1], coarse[-last:])
    ]
    return _at(scores, torch.cat([coarse[: bins + 1 - last], *split]))


def bucket(scores: Tensor, edges: Tensor) -> Tensor:
    """Any shape -> int64: how many edges lie below the score."""
    return torch.bucketize(scores, edges)


def level(scores: Tensor, edges: Tensor, bins: int = 64) -> Tensor:
    """The number that the network gets: 0 for the lowest bin, 1 for the top one, and more past the last edge."""
    return (bucket(scores, edges) - 1).clamp_min(0) / (bins - 1)


def _at(scores: Tensor, shares: Tensor) -> Tensor:
    distinct = scores.unique()
    enough = len(distinct) >= len(shares)
    return _closed(torch.quantile(distinct, shares) if enough else _even(scores, len(shares)))


def _even(scores: Tensor, edges: int) -> Tensor:
    return torch.linspace(float(scores.min()), float(scores.max()), edges)


def _closed(edges: Tensor) -> Tensor:
    edges = edges.clone()
    edges[0], edges[-1] = 0.0, 1.0
    return edges.unique()
