"""Captioned pictures from what people have: a folder, a CSV, webdataset tars. Each gives a `Captioned`."""

from __future__ import annotations

import csv
import io
import json
import re
import string
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import TastemakerError, UnknownName
from .captioned import Captioned, Row, Source, captioned
from .files import read_text
from .images import SUFFIXES, crop_square, list_images

Square = Callable[[Tensor], Tensor]


def from_folder(folder: str | Path, size: int, square: Square = crop_square) -> Captioned:
    """Pictures below a folder, each with a .txt of the same name beside it; a subfolder's name is the label.

    Spaces and line breaks of a caption become single spaces.
    """
    folder = Path(folder)
    images = list_images(folder)
    captions = set(folder.rglob("*.txt"))
    rows = [_folder_row(path, folder, captions) for path in images]
    unused = captions - {path.with_suffix(".txt") for path in images}
    strays = [f"{path} has no picture of the same name beside it" for path in sorted(unused)]
    return captioned(rows, size, square, str(folder), strays)


def _folder_row(path: Path, folder: Path, captions: set[Path]) -> Row:
    label = None if path.parent == folder else path.parent.relative_to(folder).as_posix()
    beside = path.with_suffix(".txt")
    if beside not in captions:
        return Row(Source(path), "", label, f"{path} has no caption: expected {beside.name} beside it")
    try:
        caption = " ".join(read_text(beside).split())
    except TastemakerError as error:
        return Row(Source(path), "", label, str(error))
    return Row(Source(path), caption, label, "" if caption else f"{beside} is empty: expected a caption")


def from_csv(
    path: str | Path,
    size: int,
    square: Square = crop_square,
    *,
    file: str = "file",
    caption: str = "caption",
    label: str | None = None,
    folder: str | Path | None = None,
) -> Captioned:
    """Rows of a CSV with a header.

    file: the column of picture paths, relative to `folder` (default: where the CSV lies). caption: a column, or a
    template of columns such as "{label}, {tags}" (see `fill`). label: the column to hold out and number
    classes by.
    A picture listed twice with the same words counts once. Raises UnknownName for a column that is not there.
    """
    rows, columns = read_table(path)
    template = caption if "{" in caption else f"{{{caption}}}"
    for column in [file, *fields_of(template), *([label] if label else [])]:
        if column not in columns:
            raise UnknownName("column", column, columns, f"Columns are read from the first line of {path}")
    base = Path(folder) if folder is not None else Path(path).parent
    made = [_csv_row(row, f"{path} line {i}", base, file, template, label) for i, row in rows]
    return captioned(list(dict.fromkeys(made)), size, square, str(path))


def _csv_row(row: Mapping[str, str], where: str, base: Path, file: str, template: str, label: str | None) -> Row:
    words = fill(template, row)
    name = row[file].strip()
    fault = "" if words else f"{where} has no caption"
    fault = fault if name else f"{where} column `{file}`: expected the path of a picture, got nothing"
    return Row(Source(base / name), words, row[label].strip() or None if label else None, fault)


def read_table(path: str | Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """([(line, row)], columns) of a CSV with a header; cells that a short line lacks are empty."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    try:
        rows = [(reader.line_num, {k: v for k, v in row.items() if k is not None}) for row in reader]
    except csv.Error as error:
        raise TastemakerError(f"{path} line {reader.line_num} is not CSV: {error}") from error
    return rows, list(reader.fieldnames or [])


def fields_of(template: str) -> list[str]:
    """The columns that a caption template names. Raises TastemakerError where its braces do not match."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise TastemakerError(f"caption template {template!r}: {error}; write columns as {{name}}") from error


def fill(template: str, row: Mapping[str, str], separator: str = "|") -> str:
    """The template with the row's values; the parts of a value split by `separator` are joined with ", ".

    An empty value takes the words before it along, or, if it is the first, the words after it: "{label}, {tags}" with
    no tags is the label alone. Without any value the caption is empty.
    """
    pieces = list(string.Formatter().parse(template))  # (words before, column or None)
    text, filled, cut = "", 0, False
    for before, name, _, _ in pieces:
        value = ", ".join(p.strip() for p in row[name].split(separator) if p.strip()) if name is not None else ""
        if value or name is None:
            text += value if cut else before + value
            filled, cut = filled + bool(value), False
        elif not filled and not cut:
            text, cut = before if before.strip() else "", True
    return " ".join(text.split()) if filled or not fields_of(template) else ""


def from_tar(
    paths: str | Path | Sequence[str | Path], size: int, square: Square = crop_square, *, caption: str = "caption"
) -> Captioned:
    """One or several webdataset tars: members of one key (the name up to the first dot of its last part) belong
    together: a picture, and the words in .txt, or in .json under `caption` (with `label`, a string, if given).

    Nothing is unpacked or unpickled: members are read at their offset, links and other kinds are never followed.
    Compressed tars cannot be read so and are refused.
    """
    tars = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    rows: list[Row] = []
    strays: list[str] = []
    for tar in tars:
        for key, parts in _members(tar).items():
            _add_sample(tar, key, parts, caption, rows, strays)
    return captioned(rows, size, square, ", ".join(map(str, tars)), strays)


def _members(path: Path) -> dict[str, dict[str, Source]]:
    """key -> suffix -> where its bytes lie."""
    samples: dict[str, dict[str, Source]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, suffix = split_key(member.name)
                if member.isreg() and not member.issparse():
                    samples.setdefault(key, {})[suffix] = Source(path, member.offset_data, member.size, member.name)
    except tarfile.TarError as error:
        hint = "an uncompressed tar is expected, so that pictures can be read in any order"
        raise TastemakerError(f"cannot read {path} as a tar: {error}; {hint}") from error
    except OSError as error:
        raise TastemakerError(f"cannot read {path}: {error.strerror or error}") from error
    return samples


def split_key(name: str) -> tuple[str, str]:
    """(key, suffix in small letters) of a tar's member."""
    match = re.match(r"((?:.*/)?[^/.]+)(\.[^/]*)?$", name)
    return (match[1], (match[2] or "").lower()) if match else (name, "")


def _add_sample(
    tar: Path, key: str, parts: dict[str, Source], caption: str, rows: list[Row], strays: list[str]
) -> None:
    picture = next((parts[s] for s in sorted(parts) if s in SUFFIXES), None)
    words = parts.get(".txt") or parts.get(".json")
    if picture is None:
        strays.append(f"{tar}: none of {', '.join(key + s for s in parts)} is a picture named {key}.jpg or alike")
    elif words is None:
        rows.append(Row(picture, "", None, f"{picture} has no caption: expected {key}.txt or {key}.json"))
    else:
        rows.append(_tar_row(picture, words, caption))


def _tar_row(picture: Source, words: Source, caption: str) -> Row:
    suffix = ".txt" if words.name.lower().endswith(".txt") else ".json"
    try:
        text, label = read_words(words.read(), suffix, caption, str(words))
    except TastemakerError as error:
        return Row(picture, "", None, str(error))
    return Row(picture, text, label)


def read_words(content: bytes, suffix: str, caption: str, where: str) -> tuple[str, str | None]:
    """(words with single spaces, label or None) of a .txt, or of a .json under `caption` and `label`. Raises
    TastemakerError naming `where` they stand if there are none."""
    try:
        text = content.decode("utf-8-sig")
        found: Any = {caption: text} if suffix == ".txt" else json.loads(text)
        value, label = found[caption], found.get("label")
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TastemakerError(f"cannot read the caption {where}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise TastemakerError(f"{where} has no `{caption}`") from error
    if not isinstance(value, str) or not value.strip():
        raise TastemakerError(f"{where}: expected words under `{caption}`, got {value!r}")
    return " ".join(value.split()), None if label is None else str(label)
