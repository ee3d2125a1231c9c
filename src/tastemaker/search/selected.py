"""What a search gives: the picture it kept of each prompt, what it chose from, and what was said on the way.

Letters: B prompts, N candidates of each, C H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..picture_bytes import as_bytes

SHOWN = 128  # pixels, the longest side of what is kept of a preview


@dataclass(frozen=True)
class Look:
    """One judgement of one path on its way."""

    step: int  # after how many steps
    words: str  # what the verifier said, with its numbers
    picture: Tensor  # (3, h, w) uint8, at most 128 pixels a side
    cut: bool = False  # the path ends here


@dataclass(frozen=True)
class Redrawn:
    """A reflection that was kept."""

    before: int  # the candidate that was reflected on
    after: int  # the one that took its place
    critique: str
    regions: Tensor | None = None  # (G, G) bool: what was drawn again, where only a part was


@dataclass(frozen=True)
class Selected:
    """What the search kept of one batch of prompts."""

    images: Tensor  # (B, 3, H, W); of a prompt without any score, the first finished candidate
    scores: Tensor  # (B, N), NaN where the verifier gave none or the path was not finished
    chosen: Tensor  # (B,) int64; -1 where every score is NaN: nothing was selected
    pictures: Tensor  # (B, N, 3, H, W) uint8 of finished paths; black where there is none
    looks: tuple[tuple[tuple[Look, ...], ...], ...]  # B of N: the judgements of each path in their order
    x: Tensor | None = None  # (B, ...) the ends of the kept paths, where the search keeps them
    redrawn: tuple[tuple[Redrawn, ...], ...] = ()  # B of the reflections that were kept, in their order


def looked(steps: Tensor, values: Tensor, images: Tensor, cut: Tensor) -> list[Look]:
    """A judgement of each of M paths by one number: steps, values and cut (M,), images (M, 3, H, W)."""
    rows = zip(steps.tolist(), values.tolist(), images, cut.tolist())
    return [Look(step, f"{value:.2f}", shown(image), gone) for step, value, image, gone in rows]


def choose(scores: Tensor) -> Tensor:
    """(B, N) -> (B,): the best candidate, the first of equals; -1 where all are NaN."""
    best = torch.where(scores.isnan(), -torch.inf, scores).argmax(1)
    return torch.where(scores.isnan().all(1), -1, best)


def gathered(
    prompts: int,
    n: int,
    places: Tensor,
    images: Tensor,
    scores: Tensor,
    looks: Sequence[Sequence[Look]] = (),
    x: Tensor | None = None,
) -> Selected:
    """The outcome of finished paths. places (M,): prompt x N + candidate; images (M, 3, H, W); scores (M,); looks:
    of every place, B N of them, or none; x (M, ...): their ends, to be kept."""
    table = torch.full((prompts * n,), float("nan"))
    table[places] = scores.cpu()
    pictures = torch.zeros(prompts * n, *images.shape[1:])
    pictures[places] = images.cpu()
    finished = torch.zeros(prompts * n, dtype=torch.bool)
    finished[places] = True
    table = table.reshape(prompts, n)
    chosen, first = choose(table), finished.reshape(prompts, n).int().argmax(1)
    rows = torch.arange(prompts) * n + torch.where(chosen < 0, first, chosen)
    shown = tuple(tuple(one) for one in looks) or ((),) * (prompts * n)
    said = tuple(shown[b * n : (b + 1) * n] for b in range(prompts))
    at = {place: k for k, place in enumerate(places.tolist())}
    ends = None if x is None else x[[at[row] for row in rows.tolist()]]
    return Selected(pictures[rows], table, chosen, as_bytes(pictures).unflatten(0, (prompts, n)), said, ends)


def shown(image: Tensor) -> Tensor:
    """(3, H, W) in [0, 1] -> (3, h, w) uint8, as a `Look` keeps it."""
    factor = -(-max(image.shape[1:]) // SHOWN)
    small = F.avg_pool2d(image[None].float(), factor)[0] if factor > 1 else image
    return as_bytes(small).cpu()
