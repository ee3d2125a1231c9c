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

TILE = 2048  # rows and columns of a tile of distances: 16 MiB
FEW = 256  # rows worked on at a time where all columns are at hand
CROWD = 512  # near neighbours per point, on average, up to which all are kept at once
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
    real_radii, generated_radii = radius_squares(real, k), radius_squares(generated, k)
    found = Balls(
        torch.zeros(len(generated), dtype=torch.int64, device=real.device),
        torch.zeros(len(real), dtype=torch.bool, device=real.device),
        torch.zeros(len(real), dtype=torch.bool, device=real.device),
    )
    search = Search(real, generated)
    for i in range(0, len(real), TILE):
        for j in range(0, len(generated), TILE):
            tile = search.tile(i, j)  # (R, C) squared distances
            rows, columns = search.inside(tile, i, j, real_radii[i : i + TILE, None], within)
            found.generated_hits += torch.bincount(columns, minlength=len(generated))
            found.real_covered[rows] = True
            rows, _ = search.inside(tile, i, j, generated_radii[None, j : j + TILE], within)
            found.real_recalled[rows] = True
    return found


def radius_squares(points: Tensor, k: int) -> Tensor:
    """(N,) float64: the squared distance of each point (N, D) to its k-th nearest other, rounded as `rounded` does.

    Every point is its own nearest, so this is the (k + 1)-th. The nearest in the first tile of columns bound it from
    above; what is within that bound is collected from half of the tiles, for the matrix is symmetric.
    """
    search = Search(points, points)
    starts = range(0, len(points), TILE)
    bound = torch.cat([search.nearest(search.tile(i, 0), i, k + 1) for i in starts])
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for i in starts:
        for j in range(i, len(points), TILE):
            tile = search.tile(i, j)
            rows, columns = true_pairs(tile <= bound[i : i + TILE, None])
            found.append((rows + i, columns + j, tile[rows, columns]))
            if j > i:
                rows, columns = true_pairs(tile <= bound[None, j : j + TILE])
                found.append((columns + j, rows + i, tile[rows, columns]))
            if sum(len(values) for *_, values in found) > CROWD * len(points):
                return radius_squares_by_rows(search, k)
    rows, columns, values = (torch.cat(parts) for parts in zip(*found))
    reach = kth_of_groups(rows, values, k + 1) + 2 * search.margin
    near = values <= reach[rows]
    rows, columns = rows[near], columns[near]
    return kth_of_groups(rows, search.exact(rows, columns), k + 1)


def radius_squares_by_rows(search: Search, k: int) -> Tensor:
    """The same where many are equally near, as in a collapsed set: all distances of a few rows at a time."""
    found = []
    for i in range(0, len(search.a), FEW):
        block = torch.cat([search.tile(i, j, FEW) for j in range(0, len(search.a), TILE)], 1)
        rows, columns = true_pairs(block <= search.nearest(block, i, k + 1)[:, None])
        found.append(kth_of_groups(rows, search.exact(rows + i, columns), k + 1))
    return torch.cat(found)


def kth_of_groups(groups: Tensor, values: Tensor, k: int) -> Tensor:
    """(G,) the k-th smallest value of each group; groups (P,): 0 .. G - 1, each with at least k values."""
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
        x, x_square = centred(a, centre, self.scale, kind)
        y, y_square = (x, x_square) if b is a else centred(b, centre, self.scale, kind)
        # (-2 x, 1, x.x) . (y, y.y, 1) is the squared distance, in one product
        ones = torch.ones(max(len(a), len(b)), 1, dtype=kind, device=a.device)
        self.right = torch.cat([y, y_square.to(kind)[:, None], ones[: len(b)]], 1)
        self.left = torch.cat([x.mul(-2), ones[: len(a)], x_square.to(kind)[:, None]], 1)
        # |error| of a squared distance: inputs rounded once, D + 2 products summed in any order, a few roundings more
        unit = torch.finfo(kind).eps / 2 * (a.shape[1] + 16)
        self.margin = (unit * (x_square.sqrt() + y_square.max().sqrt()) ** 2).to(kind)  # (N,)

    def tile(self, i: int, j: int, rows: int | None = None) -> Tensor:
        """(R, C) squared distances from row i and column j on, in squared units of `scale`, to within `margin`."""
        return self.left[i : i + (rows or TILE)] @ self.right[j : j + TILE].T

    def nearest(self, tile: Tensor, i: int, k: int) -> Tensor:
        """(R,) what the k nearest in `tile` of each row from i on are surely within; infinite for too few columns."""
        if tile.shape[1] < k:
            return torch.full_like(tile[:, 0], torch.inf)
        return tile.topk(k, largest=False).values[:, -1] + 2 * self.margin[i : i + len(tile)]

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(P,) squared distances of chosen pairs, float64, `rounded`."""
        parts = zip(rows.split(PAIRS), columns.split(PAIRS))
        squares = [(self.a[i].double() - self.b[j].double()).square().sum(1) for i, j in parts]
        return rounded(torch.cat(squares) if squares else torch.empty(0, device=rows.device), self.a.dtype)

    def inside(self, tile: Tensor, i: int, j: int, squares: Tensor, within: Within) -> tuple[Tensor, Tensor]:
        """Rows (P,) and columns (P,) of a and b where within(distance, radius); squares of radii (R, 1) or (1, C)."""
        margin, limit = self.margin[i : i + TILE].max(), (squares / self.scale**2).to(tile.dtype)
        rows, columns = true_pairs(tile <= limit + margin)
        gap = tile[rows, columns] - limit.expand_as(tile)[rows, columns]
        close = (gap >= -margin).nonzero()[:, 0]
        keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        exact = self.exact(rows[close] + i, columns[close] + j)
        keep[close] = within(exact, squares.expand_as(tile)[rows[close], columns[close]])
        return rows[keep] + i, columns[keep] + j


def true_pairs(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where mask (R, M) holds, in order. Few do, so eight at a time are looked at first."""
    flat = torch.nn.functional.pad(mask.reshape(-1), (0, -mask.numel() % 8))
    eights = flat.view(torch.int64).nonzero()  # (P, 1)
    places = (eights * 8 + torch.arange(8, device=mask.device)).reshape(-1)
    places = places[flat[places]]
    return places // mask.shape[1], places % mask.shape[1]


def rounded(squares: Tensor, kind: torch.dtype) -> Tensor:
    """Squared distances (P,) that compare as the distances do at the precision of the features: float64's own, or
    those of float32 roots. (A root taken in float64 rounds correctly to float32; not every vector unit's does.)
    """
    return squares.float().double().sqrt().float().double().square() if kind == torch.float32 else squares


def largest_norm(points: Tensor, centre: Tensor) -> float:
    return max((part - centre).norm(dim=1).max().item() for part in points.split(FEW))


def centred(points: Tensor, centre: Tensor, scale: float, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """(N, D) of the given kind, and the squared norms (N,) of just these in float64."""
    moved = torch.cat([((part - centre) / scale).to(kind) for part in points.split(FEW)])
    return moved, torch.cat([part.double().square().sum(1) for part in moved.split(FEW)])


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
