"""Our own formats, which hold everything: JSONL (one file), CSV and Parquet (a table for each kind of answer).

| kind | columns |
|---|---|
| vote | prompt_id, prompt, image_a, image_b, choice, annotator, about |
| rating | prompt_id, prompt, image, scale, value, annotator, about |
| ranking | prompt_id, prompt, images, slots, annotator, about |
| prompt | prompt_id, text, label, spec |
| picture | sha256, path |

`about` and `spec` are JSON objects, `images` and `slots` JSON lists. Of a table by hand only prompt, pictures and
answer are needed; pictures may be named by path, and other columns are kept under `about`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import TastemakerError, UnknownName
from ...records import CHOICES, Prompt, Ranking, Rating, Vote
from ..files import whole_file, write_text
from ..votes import Votes, prompts_of
from .pictures import Shelf, copy_pictures, is_inside
from .rows import Row, as_json, as_lines, prompt_id_of, read_csv, read_jsonl, read_parquet

COLUMNS = {
    "vote": ("prompt_id", "prompt", "image_a", "image_b", "choice", "annotator", "about"),
    "rating": ("prompt_id", "prompt", "image", "scale", "value", "annotator", "about"),
    "ranking": ("prompt_id", "prompt", "images", "slots", "annotator", "about"),
    "prompt": ("prompt_id", "text", "label", "spec"),
    "picture": ("sha256", "path"),
}
NEEDED = {
    "vote": {"prompt", "image_a", "image_b", "choice"},
    "rating": {"prompt", "image", "scale", "value"},
    "ranking": {"prompt", "images", "slots"},
    "prompt": {"prompt_id", "text"},
    "picture": {"sha256", "path"},
}
NESTED = ("about", "spec", "images", "slots")
TYPES = {"value": pa.float64(), "label": pa.int64()}


def kind_of(columns: set[str]) -> str | None:
    return next((kind for kind, needed in NEEDED.items() if needed <= columns), None)


def fits(columns: set[str]) -> bool:
    return "kind" in columns or kind_of(columns) is not None


# Votes <-> rows


def rows_of(votes: Votes) -> dict[str, list[dict[str, Any]]]:
    """kind -> rows of plain values, `about` and lists not yet JSON."""
    answers: dict[str, Sequence[Any]] = {"vote": votes.votes, "rating": votes.ratings, "ranking": votes.rankings}
    rows = {kind: [_answer(a, COLUMNS[kind]) for a in listed] for kind, listed in answers.items()}
    rows["prompt"] = [
        {"prompt_id": i, "text": p.text, "label": p.label, "spec": None if p.spec is None else dict(p.spec)}
        for i, p in votes.prompts.items()
    ]
    rows["picture"] = [{"sha256": digest, "path": path.as_posix()} for digest, path in votes.pictures.items()]
    return rows


def _answer(answer: Any, columns: Sequence[str]) -> dict[str, Any]:
    values = {c: getattr(answer, c) for c in columns}
    return {
        c: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for c, v in values.items()
    }


@dataclass
class Reader:
    """Rows in, Votes out. Pictures come first, so that answers may name them by hash."""

    shelf: Shelf
    found: dict[str, list[Any]] = field(default_factory=lambda: {"vote": [], "rating": [], "ranking": []})
    prompts: dict[str, Prompt] = field(default_factory=dict)

    def read(self, tables: Mapping[str, Iterable[Row]]) -> Votes:
        for row in tables.get("picture", ()):
            self._picture(row)
        for row in tables.get("prompt", ()):
            label = None if row.values.get("label") in (None, "") else row.whole("label")
            spec = row.mapping("spec") or None
            self.prompts[row.text("prompt_id")] = Prompt(row.values.get("text") or "", label, spec)
        for kind, make in MAKERS.items():
            self.found[kind] += [make(row, self.shelf) for row in tables.get(kind, ())]
        answers = [a for listed in self.found.values() for a in listed]
        return Votes(
            tuple(self.found["vote"]),
            tuple(self.found["rating"]),
            tuple(self.found["ranking"]),
            pictures=self.shelf.found,
            prompts={**self.prompts, **{i: p for i, p in prompts_of(answers).items() if i not in self.prompts}},
            folder=self.shelf.folder,
        )

    def _picture(self, row: Row) -> None:
        digest, path = row.text("sha256"), row.text("path")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise row.bad("sha256", "64 digits of a sha256 in hexadecimal")
        if not is_inside(path):
            raise row.bad("path", "a path inside the folder of the table")
        self.shelf.known(digest, path)


def _common(row: Row, kind: str) -> dict[str, Any]:
    prompt = row.values.get("prompt")
    if not isinstance(prompt, str):
        raise row.bad("prompt", "words")
    extra = {k: v for k, v in row.rest({*COLUMNS[kind], "kind"}).items() if v not in (None, "")}
    return {
        "prompt_id": row.text("prompt_id", "") or prompt_id_of(prompt),
        "prompt": prompt,
        "annotator": row.text("annotator", ""),
        "about": {**extra, **row.mapping("about")},
    }


def _vote(row: Row, shelf: Shelf) -> Vote:
    if row.values.get("choice") not in CHOICES:
        raise row.bad("choice", f"one of {', '.join(CHOICES)}")
    a, b = shelf.name(row.text("image_a")), shelf.name(row.text("image_b"))
    return Vote(image_a=a, image_b=b, choice=row.values["choice"], **_common(row, "vote"))


def _rating(row: Row, shelf: Shelf) -> Rating:
    image, scale = shelf.name(row.text("image")), row.text("scale")
    return Rating(image=image, scale=scale, value=row.number("value"), **_common(row, "rating"))


def _ranking(row: Row, shelf: Shelf) -> Ranking:
    files = row.listed("images", str)
    slots = row.listed("slots", int, len(files))
    return Ranking(images=tuple(shelf.name(f) for f in files), slots=tuple(slots), **_common(row, "ranking"))


MAKERS: dict[str, Callable[[Row, Shelf], Any]] = {"vote": _vote, "rating": _rating, "ranking": _ranking}


# JSONL: a line per row, its kind in the column `kind`


def write_jsonl(votes: Votes, folder: Path, name: str = "votes.jsonl") -> list[Path]:
    lines = [{"kind": kind, **row} for kind, rows in rows_of(votes).items() for row in rows]
    text = as_lines(lines, name)
    copy_pictures(votes, folder)
    write_text(folder / name, text)
    return [folder / name]


def read_jsonl_votes(path: Path) -> Votes:
    return _by_kind(path, read_jsonl(path))


def _by_kind(path: Path, rows: Iterable[Row]) -> Votes:
    tables: dict[str, list[Row]] = {kind: [] for kind in COLUMNS}
    for row in rows:
        kind = row.values.get("kind") or kind_of(set(row.values))
        if not isinstance(kind, str) or kind not in tables:
            raise row.bad("kind", f"one of {', '.join(COLUMNS)}")
        tables[kind].append(row)
    with Shelf(path) as shelf:
        return Reader(shelf).read(tables)


# CSV and Parquet: a table per kind, in files named votes, ratings, rankings, prompts, pictures


def write_csv(votes: Votes, folder: Path) -> list[Path]:
    texts = {f"{kind}s.csv": _csv_text(kind, rows) for kind, rows in rows_of(votes).items()}
    copy_pictures(votes, folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _csv_text(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS[kind], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(_flat(row, f"{kind}s row {i}") for i, row in enumerate(rows, 1))
    return out.getvalue()


def _flat(row: Mapping[str, Any], what: str) -> dict[str, Any]:
    return {k: as_json(v, f"{what} {k}") if k in NESTED and v is not None else v for k, v in row.items()}


def write_parquet(votes: Votes, folder: Path) -> list[Path]:
    tables = {}
    for kind, rows in rows_of(votes).items():
        flat = [_flat(row, f"{kind}s row {i}") for i, row in enumerate(rows, 1)]
        types = {c: TYPES.get(c, pa.string()) for c in COLUMNS[kind]}
        tables[f"{kind}s.parquet"] = pa.table({c: pa.array([r[c] for r in flat], t) for c, t in types.items()})
    copy_pictures(votes, folder)
    for name, table in tables.items():
        with whole_file(folder / name) as temporary:
            pq.write_table(table, temporary)
    return [folder / name for name in tables]


def read_table(path: Path) -> Votes:
    """One of our tables with its sisters: those of the names above in the same folder are read along."""
    suffix = path.suffix.lower()
    reader: Callable[[Path], Iterable[Row]] = read_csv if suffix == ".csv" else read_parquet
    named = {kind: path.with_name(f"{kind}s{suffix}") for kind in COLUMNS}
    if path.name not in {p.name for p in named.values()}:
        return _by_kind(path, reader(path))
    with Shelf(path) as shelf:
        return Reader(shelf).read({kind: _checked(p, kind, reader) for kind, p in named.items() if p.is_file()})


def _checked(path: Path, kind: str, reader: Callable[[Path], Iterable[Row]]) -> list[Row]:
    rows = list(reader(path))
    missing = sorted(NEEDED[kind] - set(rows[0].values)) if rows else []
    if missing:
        raise UnknownName("column", missing[0], rows[0].values, f"{path} is a table of {kind}s and needs it")
    return rows


def read_folder(folder: Path) -> Path | None:
    """The file of a folder that leads to everything in it."""
    names = ["votes.jsonl", "raw.jsonl", *(f"{k}s.{s}" for s in ("csv", "parquet") for k in COLUMNS)]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def refuse_empty(votes: Votes, path: Path) -> Votes:
    if not len(votes) and not votes.prompts:
        raise TastemakerError(f"{path} holds no votes, ratings, rankings or prompts")
    return votes
