"""Precision, recall, density and coverage from k-nearest-neighbour balls, exactly and without an N x N matrix.

Precision and recall: Kynkäänniemi et al., arXiv 1904.06991; density and coverage: Naeem et al., arXiv 2002.09797,
Eqs. 5 and 7. The radius of a point is the distance to its k-th nearest other point of its own set (duplicates count).

Distances are first computed in float32, a block of rows at a time, with a bound on their error. Only pairs that the
bound cannot decide are settled in float64, so the counts are those of float64. Distances are rounded to the features'
own precision before they are compared, as the `prdc` package does: float32 features give what it gives for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError

ROWS = 512  # rows of a block
PAIRS = 512  # pairs settled in float64 at a time (what fits a cache)
Within = Callable[[Tensor, Tensor], Tensor]  # torch.lt or torch.le


def prdc(real: Any, generated: Any, k: int = 5) -> dict[str, float]:
    """`precision`, `recall`, `density`, `coverage` with a point inside a ball where its distance is < the radius.

    real (N, D), generated (M, D): arrays or tensors on one device. Shares are in [0, 1], density is >= 0.
    Raises TastemakerError on other shapes, on NaN, and where a set has not more than k points.
    """
    found = balls(real, generated, k, torch.lt)
    return {
        "precision": share(found.generated_hits > 0),
        "recall": share(found.real_recalled),
        "density": found.generated_hits.sum().item() / (k * len(found.generated_hits)),
        "coverage": share(found.real_covered),
    }


def precision_recall(real: Any, generated: Any, k: int = 3) -> dict[str, float]:
    """`precision`, `recall` and their harmonic mean `f_score`, a point on the rim counting as inside (<=): the form
    of the original paper and of torch-fidelity. Arguments and errors as for `prdc`."""
    found = balls(real, generated, k, torch.le)
    precision, recall = share(found.generated_hits > 0), share(found.real_recalled)
    both = precision + recall
    return {"precision": precision, "recall": recall, "f_score": 2 * precision * recall / both if both else 0.0}


@dataclass
class Balls:
    generated_hits: Tensor  # (M,) int64, how many real balls hold the generated point
    real_covered: Tensor  # (N,) bool, whether the real point's ball holds a generated point
    real_recalled: Tensor  # (N,) bool, whether a generated point's ball holds the real point


def balls(real: Any, generated: Any, k: int, within: Within) -> Balls:
    """Which points lie in whose balls."""
    real, generated = check(real, k, "real"), check(generated, k, "generated")
    if real.shape[1] != generated.shape[1]:
        raise TastemakerError(f"expected features of one space, got widths {real.shape[1]} and {generated.shape[1]}")
    real_radius, generated_radius = radii(real, k), radii(generated, k)
    found = Balls(
        torch.zeros(len(generated), dtype=torch.int64, device=real.device),
        torch.zeros(len(real), dtype=torch.bool, device=real.device),
        torch.zeros(len(real), dtype=torch.bool, device=real.device),
    )
    search = Search(real, generated)
    for i in range(0, len(real), ROWS):
        block = search.block(i)  # (R, M) squared distances
        rows, columns = search.inside(block, i, real_radius[i : i + ROWS, None], within)
        found.generated_hits += torch.bincount(columns, minlength=len(generated))
        found.real_covered[rows] = True
        rows, _ = search.inside(block, i, generated_radius[None], within)
        found.real_recalled[rows] = True
    return found


def radii(points: Tensor, k: int) -> Tensor:
    """(N,) float64: the distance of each point (N, D) to its k-th nearest other, rounded as `rounded` does."""
    search, found = Search(points, points), []
    for i in range(0, len(points), ROWS):
        block = search.block(i)
        reach = (
            block.topk(k + 1, largest=False).values[:, -1] + 2 * search.margin[i : i + ROWS]
        )  # itself is among them
        rows, columns = true_pairs(block <= reach[:, None])
        found.append(kth_of_groups(rows, search.exact(rows + i, columns), k + 1))
    return torch.cat(found)


def kth_of_groups(groups: Tensor, values: Tensor, k: int) -> Tensor:
    """The k-th smallest value of each group; groups (P,): 0 .. G - 1 ascending, each with at least k values."""
    by_value = values.argsort(stable=True)
    order = by_value[groups[by_value].argsort(stable=True)]
    sizes = torch.bincount(groups)
    return values[order[sizes.cumsum(0) - sizes + k - 1]]


class Search:
    """Distances between two sets: fast ones with an error bound, exact ones for chosen pairs."""

    def __init__(self, a: Tensor, b: Tensor):
        self.a, self.b = a, b
        # float32 products may be cut to fewer bits where the user allowed that; then the fast way is float64
        kind = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
        centre = a.mean(0, dtype=torch.float64)
        self.scale = max(largest_norm(a, centre), largest_norm(b, centre)) or 1.0  # no overflow, whatever the units
        self.x = centred(a, centre, self.scale, kind)
        self.y = self.x if b is a else centred(b, centre, self.scale, kind)
        self.x_square, self.y_square = (v.double().square().sum(1) for v in (self.x, self.y))
        # |error| of a squared distance: inputs rounded once, D products summed in any order, a few additions
        unit = torch.finfo(kind).eps / 2 * (a.shape[1] + 16)
        self.margin = (unit * (self.x_square.sqrt() + self.y_square.max().sqrt()) ** 2).to(kind)  # (N,)

    def block(self, start: int) -> Tensor:
        """(R, M) squared distances of rows from start, in squared units of `scale`, to within `margin`."""
        x, kind = self.x[start : start + ROWS], self.x.dtype
        products = torch.addmm(self.y_square.to(kind), x, self.y.T, alpha=-2)
        return products.add_(self.x_square[start : start + ROWS, None].to(kind))

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(P,) distances of chosen pairs, float64, `rounded`."""
        parts = zip(rows.split(PAIRS), columns.split(PAIRS))
        squares = [(self.a[i].double() - self.b[j].double()).square().sum(1) for i, j in parts]
        return rounded(torch.cat(squares) if squares else torch.empty(0, device=rows.device), self.a.dtype)

    def inside(self, block: Tensor, start: int, radius: Tensor, within: Within) -> tuple[Tensor, Tensor]:
        """Rows (P,) and columns (P,) of the pairs with within(distance, radius); radius (R, 1) or (1, M)."""
        margin = self.margin[start : start + ROWS]
        limit = (radius / self.scale).square().to(block.dtype)
        if len(radius) == 1:
            near = block <= limit + margin[:, None]
        else:
            near = block <= limit + margin[:, None]
        rows, columns = true_pairs(near)
        gap = block[rows, columns] - limit.expand_as(block)[rows, columns]
        close = (gap >= -margin[rows]).nonzero()[:, 0]
        keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        exact = self.exact(rows[close] + start, columns[close])
        keep[close] = within(exact, radius.expand_as(block)[rows[close], columns[close]])
        return rows[keep] + start, columns[keep]


def true_pairs(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where mask (R, M) holds, in order. Few do, so eight at a time are looked at first."""
    flat = torch.nn.functional.pad(mask.reshape(-1), (0, -mask.numel() % 8))
    eights = flat.view(torch.int64).nonzero()  # (P, 1)
    places = (eights * 8 + torch.arange(8, device=mask.device)).reshape(-1)
    places = places[flat[places]]
    return places // mask.shape[1], places % mask.shape[1]


def rounded(squares: Tensor, kind: torch.dtype) -> Tensor:
    """Distances (P,) from squared ones, at the precision of float32 features, else of float64."""
    return squares.float().sqrt().double() if kind == torch.float32 else squares.sqrt()


def largest_norm(points: Tensor, centre: Tensor) -> float:
    return max((part - centre).norm(dim=1).max().item() for part in points.split(ROWS))


def centred(points: Tensor, centre: Tensor, scale: float, kind: torch.dtype) -> Tensor:
    return torch.cat([((part - centre) / scale).to(kind) for part in points.split(ROWS)])


def share(flags: Tensor) -> float:
    return flags.double().mean().item()


def check(features: Any, k: int, name: str) -> Tensor:
    """(N, D), float32 as it is and any other type as float64."""
    points = torch.as_tensor(features).detach()
    points = points if points.dtype == torch.float32 else points.double()
    if points.ndim != 2:
        raise TastemakerError(f"expected {name} features (N, D), got shape {tuple(points.shape)}")
    if not 1 <= k < len(points):
        raise TastemakerError(f"k must be at least 1 and below the {len(points)} {name} points, got {k}")
    if not points.isfinite().all():
        raise TastemakerError(f"{name} features hold NaN or infinity: leave out the pictures whose features failed")
    return points
