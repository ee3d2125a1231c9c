"""Tables of mean human scores: a CSV with a row per picture, such as AGIQA-3K's (Li et al., TCSVT 2023). No torch.

| column | names it may have | |
|---|---|---|
| picture | file, image, name, path, filename | relative to the table or to the folder `images` beside it |
| prompt | prompt, caption, text | the words; `prompt_id`, if there is one, tells prompts apart |
| generator | generator, model | optional; `setting` with it makes a generator setting |
| scores | every other column that is a number throughout | an empty cell is a missing score |
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError, UnknownName
from .files import read_text
from .split import key_of

PICTURE = ("file", "image", "name", "path", "filename")
PROMPT = ("prompt", "caption", "text")
GENERATOR = ("generator", "model")
KNOWN = {*PICTURE, *PROMPT, *GENERATOR, "setting", "prompt_id"}


@dataclass(frozen=True)
class RatingsTable:
    """N pictures with their scores; every field has one entry per picture."""

    images: tuple[Path, ...]
    prompts: tuple[str, ...]
    prompt_ids: tuple[str, ...]  # equal where two pictures share a prompt
    generators: tuple[str, ...]  # "" where the table does not say
    settings: tuple[str, ...]  # "generator setting", or the generator alone
    scores: Mapping[str, NDArray[np.float64]]  # (N,), NaN = missing

    def __len__(self) -> int:
        return len(self.images)

    def score(self, name: str) -> NDArray[np.float64]:
        """(N,) of a column by its name, or by what is meant: `quality` finds `mos_quality`, `alignment` `mos_align`.

        Raises UnknownName where no column, or more than one, fits.
        """
        if name in self.scores:
            return self.scores[name]
        means = [c for c in self.scores if c.startswith("mos_") and name.casefold().startswith(c[4:].casefold())]
        if len(means) != 1:
            raise UnknownName("score of the ratings table", name, self.scores)
        return self.scores[means[0]]


def read_ratings(path: str | Path, pictures: bool = True) -> RatingsTable:
    """See the table above. pictures: every file must be there (False: for statistics of the scores alone).

    Raises TastemakerError naming the file, the row (its line in the file) and the column for a row that is not valid,
    and UnknownName for a column that is missing. `path` may be a folder with one ratings.csv.
    """
    path = Path(path)
    path = path / "ratings.csv" if path.is_dir() else path
    columns, lines, rows = _rows(path)
    file, prompt = _column(columns, PICTURE, path), _column(columns, PROMPT, path)
    generator = next((c for c in columns if c.casefold() in GENERATOR), None)
    for line, row in zip(lines, rows):
        for column in (file, prompt):
            if not row[column].strip():
                raise TastemakerError(f"{path} line {line} column `{column}`: expected a value, got nothing")
    places = _Places(path)
    images = tuple(places.find(row[file].strip(), line, file, pictures) for line, row in zip(lines, rows))
    prompts = tuple(" ".join(row[prompt].split()) for row in rows)
    generators = tuple(row[generator].strip() if generator else "" for row in rows)
    return RatingsTable(
        images,
        prompts,
        tuple(row["prompt_id"] if "prompt_id" in row else key_of(p) for row, p in zip(rows, prompts)),
        generators,
        tuple(f"{g} {row.get('setting', '').strip()}".strip() for g, row in zip(generators, rows)),
        _scores(path, columns, lines, rows),
    )


def _rows(path: Path) -> tuple[list[str], list[int], list[dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    lines, rows = [], []
    try:
        for row in reader:
            if None in row or None in row.values():
                cells, names = len([v for v in row.values() if v is not None]), len(reader.fieldnames or [])
                more = f"more than {names}" if None in row else str(cells)
                raise TastemakerError(f"{path} line {reader.line_num}: expected {names} columns, got {more}")
            lines.append(reader.line_num)
            rows.append(row)
    except csv.Error as error:
        raise TastemakerError(f"{path} line {reader.line_num} is not CSV: {error}") from error
    if not rows:
        raise TastemakerError(f"{path} holds no ratings: expected a header and a row per picture")
    return list(reader.fieldnames or []), lines, rows


def _column(columns: Sequence[str], names: Sequence[str], path: Path) -> str:
    found = [c for name in names for c in columns if c.casefold() == name]
    if not found:
        raise UnknownName("column", names[0], columns, f"{path} needs one of: {', '.join(names)}")
    return found[0]


class _Places:
    """Where a table's pictures lie: beside it, or in its folder `images`."""

    def __init__(self, path: Path):
        self.path, self.folders = path, (path.parent, path.parent / "images")

    def find(self, name: str, line: int, column: str, needed: bool) -> Path:
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        if needed:
            place = f"{self.path} line {line} column `{column}`"
            raise TastemakerError(f"{place}: there is no picture {name} beside the table or in images/")
        return self.folders[0] / name


def _scores(
    path: Path, columns: Sequence[str], lines: Sequence[int], rows: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.float64]]:
    """Columns that are numbers; one that is so for the most part is a mistake, and the first odd cell is named."""
    scores = {}
    for column in columns:
        values = [_number(row[column]) for row in rows]
        odd = [i for i, v in enumerate(values) if v is None]
        numbers = sum(v is not None and not math.isnan(v) for v in values)
        if column.casefold() in KNOWN or numbers <= len(odd):
            continue
        if odd:
            place = f"{path} line {lines[odd[0]]} column `{column}`"
            raise TastemakerError(f"{place}: expected a number, got {rows[odd[0]][column]!r}")
        scores[column] = np.array(values, np.float64)
    if not scores:
        raise TastemakerError(f"{path} has no column of scores: none of {', '.join(columns)} is a number throughout")
    return scores


def _number(text: str) -> float | None:
    """A number; NaN for an empty cell; None for anything else (an infinity too)."""
    try:
        value = float(text) if text.strip() else math.nan
    except ValueError:
        return None
    return None if math.isinf(value) or (math.isnan(value) and text.strip()) else value
