"""The three shapes of ImageRewardDB's rows (Xu et al. 2023, the data set's card), as Parquet, JSON or JSONL.

| shape | a row is | columns |
|---|---|---|
| flat | a picture | image, prompt_id, prompt, classification, image_amount_in_total, rank, three ratings |
| group | a prompt | the same, with image, rank and the ratings as lists |
| pair | two pictures that are no tie | prompt_id, prompt, classification, img_better, img_worse |

Ranks count from 1, the best; ratings are from 1 to 7. A prompt has one order and one rating per picture there, so
several people's are aggregated (`tastemaker.data.aggregate`) and the ratings are their mean. `image` may be a path,
or as in a Parquet of the hub a struct of `bytes` and `path`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...records import Ranking, Rating, Vote
from ..aggregate import mean_ratings, one_ranking_per_prompt, one_vote_per_pair
from ..files import whole_file
from ..votes import Votes, prompts_of
from .pictures import Shelf, columns_kept, copy_pictures, file_names, keep_columns
from .rows import Row, as_json, prompt_id_of, read_rows

SCALES = {
    "overall_rating": "overall",
    "image_text_alignment_rating": "alignment",
    "fidelity_rating": "fidelity",
}
PER_IMAGE = ("image", "rank", *SCALES)
KNOWN = ("prompt_id", "prompt", "classification", "image_amount_in_total", *PER_IMAGE)
PAIR = ("prompt_id", "prompt", "classification", "img_better", "img_worse")


def fits(columns: set[str]) -> bool:
    return {"image", "rank", "prompt"} <= columns or {"img_better", "img_worse"} <= columns


def read(path: Path) -> Votes:
    with Shelf(path) as shelf:
        groups: dict[str, list[Row]] = {}
        votes: list[Vote] = []
        for row in read_rows(path):
            if "img_better" in row.values:
                votes.append(_vote(row, shelf))
            else:
                for single in _singles(row, shelf):
                    groups.setdefault(_prompt_id(row), []).append(single)
        rankings = tuple(_ranking(rows) for rows in groups.values())
        ratings = tuple(r for rows in groups.values() for row in rows for r in _ratings(row))
        prompts = prompts_of([*rankings, *votes])
        return Votes(tuple(votes), ratings, rankings, shelf.found, prompts, path.parent)


def _prompt_id(row: Row) -> str:
    return row.text("prompt_id", "") or prompt_id_of(row.text("prompt"))


def _vote(row: Row, shelf: Shelf) -> Vote:
    prompt = row.text("prompt")
    better, worse = (_image(row, column, row.values.get(column), shelf) for column in ("img_better", "img_worse"))
    about = _about(row, row.rest(PAIR))
    return Vote(row.text("prompt_id", prompt_id_of(prompt)), prompt, better, worse, "a", about=about)


def _about(row: Row, rest: Mapping[str, Any]) -> dict[str, Any]:
    kind = row.text("classification", "")
    return keep_columns({"classification": kind} if kind else {}, rest)


def _image(row: Row, column: str, value: Any, shelf: Shelf) -> str:
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(content, bytes):
        held = shelf.hold(content)
        if held is None:
            raise row.bad(column, "the bytes of a JPEG, PNG, GIF or WebP picture")
        return held
    name = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name:
        raise row.bad(column, "the path or the bytes of a picture")
    return shelf.name(name)


def _singles(row: Row, shelf: Shelf) -> list[Row]:
    """A flat row, or a group row taken apart: rows of one picture each, the picture already known by its name."""
    grouped = isinstance(row.values.get("rank"), list)
    count = len(row.values["rank"]) if grouped else 1
    columns: dict[str, Any] = {c: row.values[c] for c in PER_IMAGE if c in row.values}
    for column, value in columns.items():
        if grouped and (not isinstance(value, list) or len(value) != count):
            raise row.bad(column, f"a list of {count} entries, as `rank` has")
    rest = {k: v for k, v in row.values.items() if k not in columns}
    cells = [{**rest, **{c: v[i] if grouped else v for c, v in columns.items()}} for i in range(count)]
    singles = [Row(row.place, values) for values in cells]
    for single in singles:
        if single.whole("rank") < 1:
            raise single.bad("rank", "a rank counted from 1, the best")
    return [Row(s.place, {**s.values, "image": _image(s, "image", s.values["image"], shelf)}) for s in singles]


def _ranking(rows: Sequence[Row]) -> Ranking:
    first = rows[0]
    texts = {row.text("prompt") for row in rows}
    if len(texts) > 1:
        odd = next(row for row in rows if row.text("prompt") != first.text("prompt"))
        raise odd.bad("prompt", f"the words that {first.place} has under this prompt_id")
    rest = [row.rest(KNOWN) for row in rows]
    about = _about(first, {})
    if any(rest):
        about["rows"] = rest
    total = first.values.get("image_amount_in_total")
    if total is not None and total != len(rows):
        about["image_amount_in_total"] = first.whole("image_amount_in_total")
    images, slots = tuple(row.values["image"] for row in rows), tuple(row.whole("rank") for row in rows)
    return Ranking(_prompt_id(first), first.text("prompt"), images, slots, about=about)


def _ratings(row: Row) -> Iterable[Rating]:
    for column, scale in SCALES.items():
        if row.values.get(column) not in (None, ""):
            value = row.number(column)
            yield Rating(_prompt_id(row), row.text("prompt"), row.values["image"], scale, value)


# export


def flat_rows(votes: Votes) -> list[dict[str, Any]]:
    return [row for group in _grouped(votes) for row in group]


def group_rows(votes: Votes) -> list[dict[str, Any]]:
    """Other columns of single pictures become lists too, None where a picture lacks one."""
    return [_group_row(group) for group in _grouped(votes)]


def _group_row(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(c for row in group for c in row))
    shared = ("prompt_id", "prompt", "classification", "image_amount_in_total")
    return {c: group[0][c] if c in shared else [row.get(c) for row in group] for c in columns}


def _grouped(votes: Votes) -> Iterable[list[dict[str, Any]]]:
    marks = mean_ratings(votes)
    for ranking in one_ranking_per_prompt(votes):
        rest = ranking.about.get("rows") or [{}] * len(ranking.images)
        common = {
            "prompt_id": ranking.prompt_id,
            "prompt": ranking.prompt,
            "classification": ranking.about.get("classification", ""),
            "image_amount_in_total": ranking.about.get("image_amount_in_total", len(ranking.images)),
        }
        rows = []
        for image, file, slot, more in zip(ranking.images, file_names(votes, ranking), ranking.slots, rest):
            given = marks.get((ranking.prompt_id, image), {})
            ratings = {column: _whole(given.get(scale)) for column, scale in SCALES.items()}
            rows.append({"image": file, **common, "rank": slot, **ratings, **more})
        yield rows


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value


def pair_rows(votes: Votes) -> list[dict[str, Any]]:
    return [_pair_row(votes, vote) for vote in one_vote_per_pair(votes) if vote.choice in ("a", "b")]


def _pair_row(votes: Votes, vote: Vote) -> dict[str, Any]:
    files = file_names(votes, vote)
    better, worse = files if vote.choice == "a" else reversed(files)
    common = {"prompt_id": vote.prompt_id, "prompt": vote.prompt}
    kind = {"classification": vote.about.get("classification", "")}
    return {**common, **kind, "img_better": better, "img_worse": worse, **columns_kept(vote)}


ROWS: dict[str, Callable[[Votes], list[dict[str, Any]]]] = {"flat": flat_rows, "group": group_rows, "pair": pair_rows}


def write(shape: str, suffix: str) -> Callable[[Votes, Path], list[Path]]:
    """A writer of one shape: suffix `.parquet` or `.json`."""

    def writer(votes: Votes, folder: Path) -> list[Path]:
        rows, place = ROWS[shape](votes), folder / f"imagerewarddb-{shape}{suffix}"
        text = as_json(rows, place.name) if suffix == ".json" else ""
        copy_pictures(votes, folder)
        with whole_file(place) as temporary:
            if suffix == ".json":
                temporary.write_text(text, encoding="utf-8")
            else:
                pq.write_table(table_of(rows, shape), temporary)
        return [place]

    return writer


def table_of(rows: Sequence[Mapping[str, Any]], shape: str) -> pa.Table:
    """Typed as the data set's card says: int8 for ranks and ratings, double where a mean is no whole number."""
    columns = list(dict.fromkeys(c for row in rows for c in row)) or list(PAIR if shape == "pair" else KNOWN)
    return pa.table({c: _column(c, [row.get(c) for row in rows]) for c in columns})


def _column(name: str, values: list[Any]) -> pa.Array:
    array = pa.array(values)
    small = name in ("rank", "image_amount_in_total", *SCALES)
    inner = array.type.value_type if pa.types.is_list(array.type) else array.type
    if not small or not (pa.types.is_integer(inner) or pa.types.is_null(inner)):
        return array
    return array.cast(pa.list_(pa.int8()) if pa.types.is_list(array.type) else pa.int8())
