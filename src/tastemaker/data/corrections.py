"""Files of corrections: a JSON line for each with `prompt`, `bad` and `good`, paths of pictures beside the file or
absolute, `reason`, what is wrong with the bad one in words, and, where it is known, `regions`: rows from the top of 0
and 1, 1 where the bad picture is at fault. Letters: G cells a side of the regions, S pixels a side, B batch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..critique import emphasised
from ..errors import TastemakerError
from ..records import Prompt
from .files import json_lines, read_text, write_text
from .images import crop_square, load_image, resize

FIELDS = ("prompt", "bad", "good", "reason")
Regions = tuple[tuple[int, ...], ...]  # G of G


@dataclass(frozen=True)
class Correction:
    """One group."""

    prompt: Prompt
    bad: Path
    good: Path
    reason: str
    regions: Regions | None = None


def read_corrections(path: str | Path) -> list[Correction]:
    """In the order of the file. Raises TastemakerError naming the line that lacks a field, has regions that are no
    square of 0 and 1, or names a picture that is not there."""
    path = Path(path)
    found = [_correction(place, row, path.parent) for place, row in json_lines(read_text(path), str(path))]
    if not found:
        raise TastemakerError(f"{path} holds no groups; expected a JSON line with {', '.join(FIELDS)} for each")
    return found


def _correction(place: str, row: Any, folder: Path) -> Correction:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in FIELDS):
        raise TastemakerError(f"{place}: expected text in the fields {', '.join(FIELDS)}, got {row!r}")
    bad, good = folder / row["bad"], folder / row["good"]
    for picture in (bad, good):
        if not picture.is_file():
            raise TastemakerError(f"{place}: there is no picture {picture}")
    return Correction(Prompt(row["prompt"]), bad, good, row["reason"], _regions(place, row.get("regions")))


def _regions(place: str, rows: Any) -> Regions | None:
    if rows is None:
        return None
    square = isinstance(rows, list) and all(isinstance(r, list) and len(r) == len(rows) for r in rows)
    if not rows or not square or any(cell not in (0, 1) for r in rows for cell in r):
        raise TastemakerError(f"{place}: expected regions as rows of 0 and 1, as many as each is long, got {rows!r}")
    return tuple(tuple(map(int, r)) for r in rows)


def write_corrections(corrections: Sequence[Correction], path: str | Path) -> None:
    """Paths as seen from the file."""
    folder, lines = Path(path).absolute().parent, []
    for one in corrections:
        bad, good = (os.path.relpath(p.absolute(), folder) for p in (one.bad, one.good))
        row: dict[str, Any] = {"prompt": one.prompt.text, "bad": bad, "good": good, "reason": one.reason}
        lines.append(json.dumps(row if one.regions is None else row | {"regions": one.regions}))
    write_text(path, "".join(f"{line}\n" for line in lines))


@dataclass(frozen=True)
class CorrectionPictures:
    """A map-style data set: `data[i]` is ((3, 3, S, S) float32, the prompt with the reason in it). The first two are
    the bad and the good picture in [0, 1], cut square and resized; the third is 1 where the bad one is at fault, 0
    elsewhere, and NaN where nobody said. Raises TastemakerError naming a file that cannot be read."""

    corrections: tuple[Correction, ...]
    size: int  # S

    def __len__(self) -> int:
        return len(self.corrections)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        one, shape = self.corrections[index], (self.size, self.size)
        both = [resize(crop_square(load_image(picture)), *shape) for picture in (one.bad, one.good)]
        cells = torch.tensor([[torch.nan]] if one.regions is None else one.regions, dtype=torch.float32)
        at_fault = F.interpolate(cells[None, None], shape)[0].expand(3, -1, -1)
        return torch.stack([*both, at_fault]), emphasised(one.prompt, one.reason)
