"""Prompts in and out: plain text, GenEval metadata, PartiPrompts tables, JSON lists. No torch.

| suffix | what a row is |
|---|---|
| .txt | a line |
| .jsonl | a string, or an object with `prompt`; with `include` it is a GenEval check (arXiv 2310.11513) |
| .json | one list of such rows |
| .tsv, .csv | a column `Prompt` (as in PartiPrompts), any case |
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import TastemakerError, UnknownName
from ..records import Prompt
from .files import json_lines, parse_json, read_text, write_text

RELATIONS = ("left of", "right of", "above", "below")  # of GenEval's `position`


def read_prompts(path: str | Path) -> list[Prompt]:
    """Every prompt of a file, in its order. Empty lines of .txt and .jsonl files are passed over.

    Raises TastemakerError that names file, row (counted from 1) and column for a row that is not valid, and for a
    file without prompts; UnknownName for a suffix that is not in the table above.
    """
    reader = READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise UnknownName("kind of prompt file", Path(path).suffix or str(path), READERS, "The suffix says the kind")
    prompts = reader(read_text(path), str(path))
    if not prompts:
        raise TastemakerError(f"{path} holds no prompts; expected at least one")
    return prompts


def write_geneval(path: str | Path, prompts: Iterable[str | Prompt]) -> None:
    """One JSON object a line in GenEval's metadata format; `read_prompts` gives the same prompts back."""
    lines = [json.dumps(_as_row(Prompt.of(p)), ensure_ascii=False) + "\n" for p in prompts]
    write_text(path, "".join(lines))


def is_held_out(text: str, share: float, seed: int = 0) -> bool:
    """A fixed coin per text: depends on its words (case and spacing aside) and the seed, on nothing else."""
    words = " ".join(text.casefold().split())
    digest = hashlib.sha256(f"{seed}\0{words}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split_prompts(prompts: Sequence[str | Prompt], share: float, seed: int = 0) -> tuple[list[Prompt], list[Prompt]]:
    """(kept, held out): about `share` of the texts are held out, and one text is never on both sides.

    A text stays on its side when others are added. Raises TastemakerError for a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise TastemakerError(f"expected a share between 0 and 1, got {share}")
    wanted = [Prompt.of(p) for p in prompts]
    kept = [p for p in wanted if not is_held_out(p.text, share, seed)]
    return kept, [p for p in wanted if is_held_out(p.text, share, seed)]


# one reader per suffix: (text, where) -> prompts


def _read_lines(text: str, where: str) -> list[Prompt]:
    return [Prompt(line.strip()) for line in text.splitlines() if line.strip()]


def _read_jsonl(text: str, where: str) -> list[Prompt]:
    return [_from_row(row, place) for place, row in json_lines(text, where)]


def _read_json(text: str, where: str) -> list[Prompt]:
    rows = parse_json(text, where) if text.strip() else []
    if not isinstance(rows, list):
        raise TastemakerError(f"{where}: expected a list of prompts, got {type(rows).__name__}")
    return [_from_row(row, f"{where} row {i}") for i, row in enumerate(rows, 1)]


def _read_table(delimiter: str) -> Callable[[str, str], list[Prompt]]:
    def read(text: str, where: str) -> list[Prompt]:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = rows.fieldnames or []
        column = next((c for c in columns if c.strip().casefold() == "prompt"), None)
        if column is None and columns:
            raise UnknownName("column", "Prompt", columns, f"{where} needs a column of prompts")
        return [Prompt(_text(row[column], f"{where} row {i}", str(column))) for i, row in enumerate(rows, 2)]

    return read


READERS: dict[str, Callable[[str, str], list[Prompt]]] = {
    ".txt": _read_lines,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".tsv": _read_table("\t"),
    ".csv": _read_table(","),
}


def _from_row(row: Any, where: str) -> Prompt:
    if isinstance(row, str):
        return Prompt(_text(row, where, "prompt"))
    if not isinstance(row, Mapping):
        raise TastemakerError(f"{where}: expected a string or an object with `prompt`, got {type(row).__name__}")
    text = _text(row.get("prompt"), where, "prompt")
    label = row.get("label")
    if label is not None and not _is_count(label, 0):
        raise TastemakerError(f"{where} column `label`: expected a whole number of at least 0, got {label!r}")
    if "include" not in row:
        return Prompt(text, label=label)
    spec = {k: v for k, v in row.items() if k not in ("prompt", "label")}
    validate_spec(spec, where)
    return Prompt(text, label=label, spec=spec)


def _as_row(prompt: Prompt) -> dict[str, Any]:
    label = {} if prompt.label is None else {"label": prompt.label}
    return {**(prompt.spec or {}), "prompt": prompt.text, **label}


def _text(value: Any, where: str, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TastemakerError(f"{where} column `{column}`: expected the words of a prompt, got {value!r}")
    return value.strip()


# the check of a prompt


def validate_spec(spec: Mapping[str, Any], where: str = "spec") -> None:
    """Raises TastemakerError naming `where` and the column, unless `spec` is a check in GenEval's format."""
    if not isinstance(spec.get("tag"), str):
        raise TastemakerError(f"{where} column `tag`: expected a word such as 'counting', got {spec.get('tag')!r}")
    for column, least in (("include", 1), ("exclude", 0)):
        entries = spec.get(column, [])
        if not isinstance(entries, list) or len(entries) < least:
            raise TastemakerError(f"{where} column `{column}`: expected a list of objects, got {entries!r}")
        for i, entry in enumerate(entries):
            _validate_entry(entry, f"{where} column `{column}[{i}]`")
    for i, entry in enumerate(spec["include"]):
        if "position" in entry:
            _validate_position(entry["position"], i, len(spec["include"]), f"{where} column `include[{i}].position`")


def _validate_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, Mapping):
        raise TastemakerError(f"{where}: expected an object with `class` and `count`, got {entry!r}")
    if not isinstance(entry.get("class"), str) or not entry["class"]:
        raise TastemakerError(f"{where}: expected `class`, the name of an object, got {entry.get('class')!r}")
    if not _is_count(entry.get("count"), 1):
        raise TastemakerError(f"{where}: expected `count`, a whole number of at least 1, got {entry.get('count')!r}")
    if "color" in entry and not isinstance(entry["color"], str):
        raise TastemakerError(f"{where}: expected `color` to be a word, got {entry['color']!r}")


def _validate_position(position: Any, own: int, count: int, where: str) -> None:
    if not isinstance(position, list | tuple) or len(position) != 2 or position[0] not in RELATIONS:
        raise TastemakerError(f"{where}: expected [relation, index], a relation of {RELATIONS}, got {position!r}")
    if not _is_count(position[1], 0) or position[1] >= count or position[1] == own:
        raise TastemakerError(f"{where}: expected the index of another entry below {count}, got {position[1]!r}")


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
