"""Tables of things to annotate: one row is one prompt with its pictures.

| column | what |
|---|---|
| prompt | the text that annotators see |
| images | list of picture files; or columns image_a and image_b |
| prompt_id | an id; the prompt itself if not given |
| hidden | list with what is known of each picture (model, seed); or columns model_a and model_b. Never shown |
| gold | the right answer of a test item: {"choice": "a"} or {"slots": [1, 2, ...]} |
| testing | true: the item belongs to the test before the work |
| sensitive | true: pictures are blurred until asked for |
| priority | a number; higher comes first |
| wanted | how many people answer |

JSONL, JSON (a list) or CSV, in which lists and objects are JSON. A file with one bad row is refused as a whole.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import TastemakerError, UnknownName
from .pictures import PictureStore
from .projects import View
from .store import NewItem, check_item

COLUMNS = ("prompt", "images", "image_a", "image_b", "prompt_id", "hidden", "model_a", "model_b", "gold", "testing",
           "sensitive", "priority", "wanted", "about")  # fmt: skip
TABLES = (".jsonl", ".json", ".csv")
Find = Callable[[str, str], Path | bytes]


def read_items(path: str | Path) -> list[NewItem]:
    """The items of a table; pictures are looked for beside it. Raises TastemakerError naming row and column."""
    path = Path(path)
    if not path.is_file():
        raise TastemakerError(f"cannot read {path}: there is no such file")

    def find(name: str, where: str) -> Path:
        found = path.parent / name
        if not found.is_file():
            raise TastemakerError(f"{where}: there is no picture {found}")
        return found

    return parse_items(path.read_bytes(), str(path), find)


def first_columns(path: Path) -> set[str]:
    """The columns of a table's first row; none where it cannot be read."""
    reader = READERS.get(path.suffix.lower())
    try:
        rows = reader(path.read_text(encoding="utf-8-sig"), str(path)) if reader else iter(())
        row: Any = next((one for _, one in rows), {})
    except (OSError, ValueError):  # also TastemakerError; `read_items` says what is wrong
        return set()
    return set(row) if isinstance(row, Mapping) else set()


def items_of_upload(project: View, files: Mapping[str, bytes], store: PictureStore) -> list[NewItem]:
    """The items of an upload: one table, and the pictures that it names, by the last part of their names.

    Every picture is decoded before anything is kept. Raises TastemakerError naming file, row and column.
    """
    tables = [name for name in files if PurePosixPath(name).suffix.lower() in TABLES]
    if len(tables) != 1:
        raise TastemakerError(f"expected one table ({', '.join(TABLES)}) and its pictures, got {len(tables)} tables")
    pictures = {PurePosixPath(name).name: content for name, content in files.items() if name != tables[0]}

    def find(name: str, where: str) -> bytes:
        short = PurePosixPath(name.replace("\\", "/")).name
        if short not in pictures:
            raise TastemakerError(f"{where}: the picture '{short}' was not uploaded with the table")
        return pictures[short]

    items = parse_items(files[tables[0]], tables[0], find)
    for item in items:
        check_item(project, item)
    for name, content in pictures.items():
        store.add(content, name)
    return items


def parse_items(content: bytes, where: str, find: Find) -> list[NewItem]:
    """find: (name of a picture, place in the table) -> file or content."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TastemakerError(f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    reader = READERS.get(PurePosixPath(where).suffix.lower())
    if reader is None:
        raise UnknownName("kind of table", where, TABLES, "The suffix says the kind")
    items = [_item(row, place, find) for place, row in reader(text, where)]
    if not items:
        raise TastemakerError(f"{where} holds no rows; expected at least one")
    return items


def _jsonl(text: str, where: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{where} row {number}", _parsed(line, f"{where} row {number}")


def _json(text: str, where: str) -> Iterator[tuple[str, Any]]:
    rows = _parsed(text, where)
    if not isinstance(rows, list):
        raise TastemakerError(f"{where}: expected a list of rows, got {type(rows).__name__}")
    yield from ((f"{where} row {number}", row) for number, row in enumerate(rows, 1))


def _csv(text: str, where: str) -> Iterator[tuple[str, Any]]:
    structured = ("images", "hidden", "gold", "about")
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 2):
        place = f"{where} row {number}"
        if None in row or None in row.values():
            raise TastemakerError(f"{place}: expected as many cells as the head has")
        filled = {k.strip(): v for k, v in row.items() if v.strip()}
        yield place, {k: _parsed(v, f"{place} column `{k}`") if k in structured else v for k, v in filled.items()}


READERS: dict[str, Callable[[str, str], Iterator[tuple[str, Any]]]] = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TastemakerError(f"{where} is not JSON: {error}") from error


def _item(row: Any, where: str, find: Find) -> NewItem:
    if not isinstance(row, Mapping):
        raise TastemakerError(f"{where}: expected an object with `prompt` and `images`, got {type(row).__name__}")
    unknown = [name for name in row if name not in COLUMNS]
    if unknown:
        raise UnknownName("column", str(unknown[0]), COLUMNS, where)
    images = _images(row, where)
    hidden = row.get("hidden") or [{"model": row[c]} if c in row else {} for c in ("model_a", "model_b")]
    if not isinstance(hidden, list) or not all(isinstance(h, Mapping) for h in hidden):
        raise TastemakerError(f"{where} column `hidden`: expected a list of objects, got {hidden!r}")
    if row.get("gold") is not None and not isinstance(row["gold"], Mapping):
        raise TastemakerError(f"{where} column `gold`: expected an object, got {row['gold']!r}")
    if not isinstance(row.get("about", {}), Mapping):
        raise TastemakerError(f"{where} column `about`: expected an object, got {row['about']!r}")
    item = NewItem(
        _words(row, "prompt", where),
        [find(name, f"{where} column `images`") for name in images],
        str(row.get("prompt_id", "")),
        hidden if any(hidden) else (),
        row.get("about", {}),
        row.get("gold"),
        where=where,
    )
    return replace(
        item,
        testing=_flag(row, "testing", where),
        sensitive=_flag(row, "sensitive", where),
        priority=_number(row, "priority", where),
        wanted=int(_number(row, "wanted", where)),
    )


def _images(row: Mapping[str, Any], where: str) -> list[str]:
    if "images" not in row:
        return [_words(row, "image_a", where), _words(row, "image_b", where)]
    images = row["images"]
    if not isinstance(images, list) or not all(isinstance(name, str) and name for name in images):
        raise TastemakerError(f"{where} column `images`: expected a list of picture files, got {images!r}")
    return images


def _words(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise TastemakerError(f"{where} column `{column}`: expected words, got {value!r}")
    return value.strip()


def _flag(row: Mapping[str, Any], column: str, where: str) -> bool:
    value = row.get(column, False)
    known = {"true": True, "false": False, "1": True, "0": False}
    flag = value if isinstance(value, bool) else known.get(str(value).strip().lower())
    if flag is None:
        raise TastemakerError(f"{where} column `{column}`: expected true or false, got {value!r}")
    return flag


def _number(row: Mapping[str, Any], column: str, where: str) -> float:
    value = row.get(column, 0)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or column == "wanted" and (number < 0 or number != int(number)):
        raise TastemakerError(f"{where} column `{column}`: expected a number, got {value!r}")
    return number
