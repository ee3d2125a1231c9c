"""The paths of one prompt as a picture: a row for each path, its previews with what the verifier said of them, and
its end; a path that was cut off stops where it was."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.grid import save_grid
from ..picture_bytes import from_bytes
from ..search.selected import SHOWN, Look, Selected

ROWS, COLUMNS = 12, 8  # most of each


def write_strip(path: Path, found: Selected, k: int) -> None:
    """Prompt k of a turn."""
    order = sorted(
        range(found.scores.shape[1]), key=lambda j: (j != int(found.chosen[k]), _cut(found.looks[k][j]), j)
    )
    chosen = [j for j in order if found.looks[k][j] or not found.scores[k, j].isnan()][:ROWS]
    rows = [_row(found, k, j) for j in chosen or [0]]
    width = max(len(row) for row in rows)
    blank = (torch.ones_like(rows[0][0][0]), "")
    cells = [cell for row in rows for cell in [*row, *[blank] * (width - len(row))]]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_grid([picture for picture, _ in cells], path, [words for _, words in cells], columns=width)


def _cut(looks: tuple[Look, ...]) -> bool:
    return bool(looks) and looks[-1].cut


def _row(found: Selected, k: int, j: int) -> list[tuple[Tensor, str]]:
    """(picture, words) of what was seen of the path, the last COLUMNS looks, and its end."""
    looks, score = found.looks[k][j], found.scores[k, j]
    cells = [(_sized(from_bytes(look.picture), found), _words(look)) for look in looks[-COLUMNS:]]
    if not score.isnan():
        mark = " kept" if j == int(found.chosen[k]) else ""
        cells.append((_sized(from_bytes(found.pictures[k, j]), found), f"end {float(score):.2f}{mark}"))
    return cells or [(_sized(from_bytes(found.pictures[k, j]), found), "no score")]


def _words(look: Look) -> str:
    return f"step {look.step}: {look.words}{' - cut off' if look.cut else ''}"


def _sized(picture: Tensor, found: Selected) -> Tensor:
    """All of one size."""
    height, width = found.images.shape[-2:]
    factor = -(-max(height, width) // SHOWN)
    return F.adaptive_avg_pool2d(picture, (height // factor, width // factor))
