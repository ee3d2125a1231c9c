"""Scores as bins, for conditioning: which scores share a bin, what a bin means, and where a target lies.

A score lies in the bin whose number is how many of the B - 1 inner edges are at or below it. A score that is missing
(NaN) has the index B, that of its own token, which is not the lowest bin. Scores beyond those that were seen lie in
the outermost bins. MIRO (arXiv 2510.25897) describes 64 bins of balanced mass; its release makes something else of
scores with few distinct values, see `official_bins.py`. Letters: N scores, R rewards, B bins, Q quantiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName
from ..records import Provenance
from .files import parse_json, read_text, write_text

FORMAT = 1  # of the file
BINS = 64
QUANTILES = 1001  # every tenth of a percent


def equal_mass(scores: Tensor, bins: int = BINS) -> Tensor:
    """(N,) -> the (B - 1,) inner edges, float64, rising, so that a score lies in bin floor(B p): p is its mid-rank,
    the share of scores below it and half of those equal to it.

    So equal scores share a bin whatever their number, bins that ties leave over stay empty, and without ties every
    bin holds N / B. Edges lie half-way between neighbouring scores. NaN takes no part. Raises TastemakerError where
    no score is left, one is infinite, or bins < 2.
    """
    values, counts = _known(scores, bins).unique(return_counts=True)  # (M,), rising
    upto = counts.cumsum(0)
    place = (2 * upto - counts) * bins // (2 * upto[-1])  # (M,) in whole numbers, so nothing is rounded
    first = torch.searchsorted(place, torch.arange(1, bins))  # (B - 1,) the lowest score of each bin from the second
    above = torch.cat([values, torch.nextafter(values[-1:], values.new_tensor(torch.inf))])[first]
    below = values[(first - 1).clamp_min(0)]
    middle = (above + below) / 2
    return torch.where((first > 0) & (first < len(values)) & (middle > below), middle, above)


def equal_width(scores: Tensor, bins: int = BINS) -> Tensor:
    """(N,) -> the (B - 1,) inner edges of B bins of one width from the least score to the greatest, float64; around
    a single value, bins of 1 / B. Raises as `equal_mass` does."""
    known = _known(scores, bins)
    low, high = known.min(), known.max()
    margin = 0.5 * (low == high)
    return torch.linspace(float(low - margin), float(high + margin), bins + 1, dtype=torch.float64)[1:-1]


def _known(scores: Tensor, bins: int) -> Tensor:
    """The scores that are not NaN, float64."""
    if scores.ndim != 1 or bins < 2:
        raise TastemakerError(f"expected scores of shape (N,) and 2 bins or more, got {tuple(scores.shape)}, {bins}")
    known = scores[~scores.isnan()].double()
    if not len(known) or known.isinf().any():
        raise TastemakerError(f"expected finite scores, NaN where one is missing; got {len(known)} of {len(scores)}")
    return known


@dataclass(frozen=True)
class Bins:
    """The bins of one reward, with what they were made from. Everything in them is plain, so equal bins are equal."""

    reward: str
    provenance: Provenance  # of the scores
    rule: str  # the function that made the edges
    inner: tuple[float, ...]  # (B - 1,)
    quantiles: tuple[float, ...]  # (Q,) of the scores, at equal steps from 0 to 1
    counts: tuple[int, ...]  # (B,) scores in each bin
    missing: int  # scores that were NaN

    def __len__(self) -> int:
        """B, which is also the index of the token for a missing score."""
        return len(self.counts)

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits of the edges, the reward and its versions: what a model was trained with."""
        said = json.dumps([self.reward, asdict(self.provenance), self.inner])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def bin_of(self, scores: Tensor) -> Tensor:
        """Any shape -> int64: 0 to B - 1, and B where the score is NaN."""
        edges = torch.tensor(self.inner, dtype=torch.float64, device=scores.device)
        found = torch.bucketize(scores.double(), edges, right=True)
        return torch.where(scores.isnan(), len(self), found)

    def level_of(self, scores: Tensor) -> Tensor:
        """Any shape -> bin / (B - 1), float32: 0 for the lowest bin, 1 for the top one, NaN where the score is."""
        return torch.where(scores.isnan(), float("nan"), self.bin_of(scores) / (len(self) - 1)).float()

    def score_of(self, index: Tensor) -> Tensor:
        """Bins, int64 of any shape -> the score in the middle of each, float64: the median of those that were in it,
        else half-way between its edges. NaN for the index B. Raises TastemakerError for one outside 0 to B."""
        if index.is_floating_point() or ((index < 0) | (index > len(self))).any():
            raise TastemakerError(f"expected bins as whole numbers from 0 to {len(self)}, got {index.tolist()}")
        middle = torch.tensor([*self._middles, float("nan")], dtype=torch.float64, device=index.device)
        return middle[index]

    def percentile_of(self, scores: Tensor) -> Tensor:
        """Any shape -> the share of scores below, and half of those equal, in [0, 1], float64; NaN stays NaN."""
        table = torch.tensor(self.quantiles, dtype=torch.float64, device=scores.device)
        x = scores.double()
        left, right = torch.searchsorted(table, x), torch.searchsorted(table, x, right=True)
        after, last = left.clamp(1, len(table) - 1), len(table) - 1
        width = (table[after] - table[after - 1]).clamp_min(torch.finfo(torch.float64).tiny)
        between = after - 1 + ((x - table[after - 1]) / width).clamp(0, 1)
        place = torch.where(right > left, (left + right - 1) / 2, between)
        return torch.where(x.isnan(), x, place / last)

    def score_at(self, percentiles: Tensor) -> Tensor:
        """Any shape, in [0, 1] -> the score that so large a share lies below, float64; NaN stays NaN.

        Raises TastemakerError outside [0, 1].
        """
        if ((percentiles < 0) | (percentiles > 1)).any():
            raise TastemakerError(f"expected percentiles from 0 to 1, got {percentiles.tolist()}")
        table = torch.tensor(self.quantiles, dtype=torch.float64, device=percentiles.device)
        place = percentiles.double().nan_to_num() * (len(table) - 1)
        low = place.floor().long().clamp_max(len(table) - 2)
        found = torch.lerp(table[low], table[low + 1], place - low)
        return torch.where(percentiles.isnan(), percentiles.double(), found)

    @cached_property
    def _middles(self) -> tuple[float, ...]:
        """(B,) a score for each bin, inside it."""
        edges = torch.tensor([self.quantiles[0], *self.inner, self.quantiles[-1]], dtype=torch.float64)
        halfway = (edges[:-1] + edges[1:]) / 2
        upto = torch.tensor(self.counts).cumsum(0)
        share = (upto - torch.tensor(self.counts) / 2) / upto[-1].clamp_min(1)
        inside = self.score_at(share.double())
        fits = self.bin_of(inside) == torch.arange(len(self))
        return tuple(torch.where(fits, inside, halfway).tolist())


def make_bins(
    reward: str,
    provenance: Provenance,
    scores: Tensor,
    rule: Callable[[Tensor, int], Tensor] = equal_mass,
    bins: int = BINS,
) -> Bins:
    """Bins of one reward from its scores (N,), NaN where one is missing. rule: `equal_mass` or `equal_width`."""
    inner = rule(scores, bins)
    ordered = _known(scores, bins).sort().values
    place = torch.linspace(0, 1, QUANTILES, dtype=torch.float64) * (len(ordered) - 1)
    low = place.floor().long()
    quantiles = torch.lerp(ordered[low], ordered[(low + 1).clamp_max(len(ordered) - 1)], place - low)
    counts = torch.bucketize(ordered, inner, right=True).bincount(minlength=bins)
    missing = len(scores) - len(ordered)
    edges, shares, filled = tuple(inner.tolist()), tuple(quantiles.tolist()), tuple(counts.tolist())
    return Bins(reward, provenance, rule.__name__, edges, shares, filled, missing)


def bins_of(bins: Sequence[Bins], scores: Tensor) -> Tensor:
    """(N, R) scores, a column per reward in the order of `bins` -> (N, R) int64, B where one is missing."""
    if scores.shape[1:] != (len(bins),):
        raise TastemakerError(f"expected scores of shape (N, {len(bins)}), got {tuple(scores.shape)}")
    return torch.stack([one.bin_of(column) for one, column in zip(bins, scores.T)], 1)


def require_same(bins: Sequence[Bins], rewards: Mapping[str, Provenance]) -> None:
    """Raise where `rewards` (name -> provenance) lack one of the bins' (UnknownName), or have it in another version
    than the scores that the bins were made from (TastemakerError)."""
    for one in bins:
        if one.reward not in rewards:
            raise UnknownName("reward", one.reward, rewards, "The bins were made from its scores")
        now = rewards[one.reward]
        if now != one.provenance:
            raise TastemakerError(
                f"reward '{one.reward}' is {now}, but its bins (version {one.version}) were made from "
                f"{one.provenance}; take the reward of that version, or score and train again"
            )


def levels_of(bins: Sequence[Bins], scores: Tensor) -> Tensor:
    """(..., R) scores, a column per reward in the order of `bins` -> (..., R) levels, NaN where one is missing."""
    if scores.shape[-1:] != (len(bins),):
        raise TastemakerError(f"expected scores of shape (..., {len(bins)}), got {tuple(scores.shape)}")
    return torch.stack([one.level_of(scores[..., j]) for j, one in enumerate(bins)], -1)


def described(bins: Sequence[Bins]) -> list[dict[str, Any]]:
    """Plain values with each one's version, as a model keeps them; `from_description` reads them back equal."""
    return [{**asdict(one), "version": one.version} for one in bins]


def from_description(rows: Sequence[Mapping[str, Any]], origin: str) -> list[Bins]:
    """Raises TastemakerError where a row is not whole, or its edges are not those of its version."""
    try:
        found = [_read(row) for row in rows]
    except (KeyError, TypeError, AttributeError) as error:
        raise TastemakerError(f"{origin} is no whole file of bins: {type(error).__name__}: {error}") from error
    for one, row in zip(found, rows):
        if one.version != row.get("version"):
            raise TastemakerError(
                f"{origin}: the bins of '{one.reward}' are not those of version {row.get('version')}"
            )
    return found


def save_bins(path: str | Path, bins: Sequence[Bins]) -> None:
    """JSON, whole or not at all; reads back equal."""
    write_text(path, json.dumps({"format": FORMAT, "bins": described(bins)}, allow_nan=False) + "\n")


def load_bins(path: str | Path) -> list[Bins]:
    """Raises TastemakerError where the file is missing, of another format, or edited since it was written."""
    said = parse_json(read_text(path), str(path))
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise TastemakerError(f"{path} is no file of bins in format {FORMAT}; make it again with save_bins")
    rows = said.get("bins")
    if not isinstance(rows, list):
        raise TastemakerError(f"{path} is no whole file of bins: it has no list of them")
    return from_description(rows, str(path))


def _read(row: Mapping[str, Any]) -> Bins:
    fields = {name: value for name, value in row.items() if name != "version"}
    lists = {name: tuple(fields[name]) for name in ("inner", "quantiles", "counts")}
    return Bins(**{**fields, **lists, "provenance": Provenance(**fields["provenance"])})


def occupancy(bins: Sequence[Bins]) -> str:
    """A table for people, a line per reward: how evenly the scores fill the bins.

    Effective bins are exp of the entropy of the shares: B where all are equal, 1 where one holds everything.
    """
    head = ("reward", "rule", "bins", "scores", "missing", "empty", "lowest", "top", "fullest", "effective")
    rows = [head, *map(_filled, bins)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _filled(one: Bins) -> tuple[str, ...]:
    share = torch.tensor(one.counts, dtype=torch.float64) / sum(one.counts)
    effective = float(torch.special.entr(share).sum().exp())
    shares = [f"{100 * float(value):.2f} %" for value in (share[0], share[-1], share.max())]
    whole = [str(n) for n in (len(one), sum(one.counts), one.missing, one.counts.count(0))]
    return (one.reward, one.rule, *whole, *shares, f"{effective:.1f}")
