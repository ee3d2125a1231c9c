"""Rows of a file with the place of each, so that a cell that is not valid is named by file, row and column."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import TastemakerError
from ..files import json_lines, parse_json, read_text, read_unchanged

PARQUET_ROWS = 64  # held at a time: a row may carry two pictures
EMPTY = (None, "")


@dataclass(frozen=True)
class Row:
    """One row: `place` is its file and number, counted from 1 (for CSV and JSONL the line of the file)."""

    place: str
    values: Mapping[str, Any]

    def bad(self, column: str, expected: str) -> TastemakerError:
        value = self.values.get(column)
        got = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)[:80]
        return TastemakerError(f"{self.place} column `{column}`: expected {expected}, got {got}")

    def text(self, column: str, default: str | None = None) -> str:
        """Words; `default` where the cell is empty or missing (None: then it is an error)."""
        value = self.values.get(column)
        if value in EMPTY and default is not None:
            return default
        if not isinstance(value, str) or not value.strip():
            raise self.bad(column, "words")
        return value

    def number(self, column: str) -> float:
        value = self.values.get(column)
        try:
            number = math.nan if isinstance(value, bool) or value is None else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self.bad(column, "a number")
        return number

    def whole(self, column: str) -> int:
        number = self.number(column)
        if number != int(number):
            raise self.bad(column, "a whole number")
        return int(number)

    def listed(self, column: str, kind: type, length: int | None = None) -> list[Any]:
        """A list of one kind (a JSON list in a cell of text), with `length` entries where that is given."""
        value = self.decoded(column)
        names = {str: "names", int: "whole numbers", bytes: "pictures"}[kind]
        if not isinstance(value, list) or not all(type(v) is kind for v in value) or not value:
            raise self.bad(column, f"a list of {names}")
        if length is not None and len(value) != length:
            raise self.bad(column, f"{length} {names}, one for each picture")
        return value

    def decoded(self, column: str) -> Any:
        """The cell; where it is text, what its JSON says."""
        value = self.values.get(column)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise self.bad(column, "JSON") from error

    def mapping(self, column: str) -> dict[str, Any]:
        """A JSON object; empty where the cell is."""
        value = None if self.values.get(column) in EMPTY else self.decoded(column)
        if value is not None and not isinstance(value, Mapping):
            raise self.bad(column, "a JSON object")
        return dict(value or {})

    def rest(self, known: Collection[str]) -> dict[str, Any]:
        """The columns that are not known: kept, and written back."""
        return {k: v for k, v in self.values.items() if k not in known}


def prompt_id_of(text: str) -> str:
    """For files without prompt ids: the first 16 digits of the sha256 of the words."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_rows(path: Path) -> list[Row] | Iterator[Row]:
    """By suffix: .json (a list), .jsonl, .csv, .parquet (read as it is used). Raises TastemakerError otherwise."""
    readers: dict[str, Callable[[Path], list[Row] | Iterator[Row]]] = {
        ".json": read_json,
        ".jsonl": read_jsonl,
        ".csv": read_csv,
        ".parquet": read_parquet,
    }
    if path.suffix.lower() not in readers:
        known = ", ".join(readers)
        raise TastemakerError(f"cannot read votes from {path}: expected a file of the kinds {known}, or a folder")
    return readers[path.suffix.lower()](path)


def read_json(path: Path) -> list[Row]:
    found = parse_json(read_text(path), str(path))
    if not isinstance(found, list):
        raise TastemakerError(f"{path}: expected a list of rows, got {type(found).__name__}")
    return [_object(row, f"{path} row {i}") for i, row in enumerate(found, 1)]


def read_jsonl(path: Path) -> list[Row]:
    return [_object(value, place) for place, value in json_lines(read_text(path), str(path))]


def _object(value: Any, place: str) -> Row:
    if not isinstance(value, Mapping):
        raise TastemakerError(f"{place}: expected an object with columns, got {type(value).__name__}")
    return Row(place, value)


def read_csv(path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(read_unchanged(path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        for values in reader:
            place, names = f"{path} row {reader.line_num}", reader.fieldnames or []
            if None in values or None in values.values():
                raise TastemakerError(f"{place}: expected {len(names)} columns, as in the header")
            rows.append(Row(place, values))
    except csv.Error as error:
        raise TastemakerError(f"{path} row {reader.line_num} is not CSV: {error}") from error
    return rows


def read_parquet(path: Path) -> Iterator[Row]:
    """A few rows at a time; a point in time becomes text, since its nanoseconds fit in nothing else."""
    try:
        with pq.ParquetFile(path) as file:
            done = 0
            for batch in file.iter_batches(PARQUET_ROWS):
                columns = {f.name: _plain(batch.column(f.name), f.name, path, done) for f in batch.schema}
                for i in range(batch.num_rows):
                    yield Row(f"{path} row {done + i + 1}", {name: c[i] for name, c in columns.items()})
                done += batch.num_rows
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise TastemakerError(f"cannot read {path} as Parquet: {error}") from error


def _plain(column: pa.Array, name: str, path: Path, done: int) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.string())
    found: list[Any] = []
    for value in column:
        try:
            found.append(value.as_py())
        except ValueError as error:  # text that is not UTF-8, a date out of range
            place = f"{path} row {done + len(found) + 1} column `{name}`"
            raise TastemakerError(f"{place}: expected a value of type {column.type}, got {error}") from error
    return found


def columns_of(path: Path) -> set[str]:
    """The columns of a file, for telling its format: of a table all, of JSON those of the first row."""
    if path.suffix.lower() == ".parquet":
        try:
            return set(pq.read_schema(path).names)
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise TastemakerError(f"cannot read {path} as Parquet: {error}") from error
    if path.suffix.lower() == ".csv":
        return set(next(csv.reader(io.StringIO(read_text(path), newline="")), []))
    rows = read_rows(path)
    return set(next(iter(rows)).values) if rows else set()


def as_json(value: Any, what: str) -> str:
    """Raises TastemakerError where the value cannot be written as JSON."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise TastemakerError(f"{what} cannot be written as JSON: {error}") from error


def as_lines(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    return "".join(as_json(row, f"{what} row {i}") + "\n" for i, row in enumerate(rows, 1))
