"""Pick-a-Pic's rows (Kirstain et al. 2023, arXiv 2305.01569; the data set's card): Parquet, a row per vote.

caption, jpg_0 and jpg_1 (the bytes of the pictures), label_0 and label_1 (1 and 0, or 0.5 each for a tie), has_label
(false: no answer), user_id (int64), best_image_uid, image_N_uid, image_N_url, model_N, ranking_id, created_at and
others, which are kept. What the format has no place for goes to columns of our own: prompt_id, annotator, choice
("both bad" is a tie to others) and about (JSON). Ratings and rankings stay in the raw file beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import TastemakerError
from ...records import CHOICES, Vote
from ..files import whole_file
from ..votes import Votes, prompts_of
from .pictures import Shelf, columns_kept, keep_columns, picture_bytes
from .rows import Row, as_json, prompt_id_of, read_rows

ROWS = 128  # written at a time
TYPES = {
    "are_different": pa.bool_(),
    "best_image_uid": pa.string(),
    "caption": pa.string(),
    "created_at": pa.timestamp("ns"),
    "has_label": pa.bool_(),
    "image_0_uid": pa.string(),
    "image_0_url": pa.string(),
    "image_1_uid": pa.string(),
    "image_1_url": pa.string(),
    "jpg_0": pa.binary(),
    "jpg_1": pa.binary(),
    "label_0": pa.float64(),
    "label_1": pa.float64(),
    "model_0": pa.string(),
    "model_1": pa.string(),
    "ranking_id": pa.int64(),
    "user_id": pa.int64(),
    "num_example_per_prompt": pa.int64(),
}
OURS = {"prompt_id": pa.string(), "annotator": pa.string(), "choice": pa.string(), "about": pa.string()}
DERIVED = {"caption", "has_label", "jpg_0", "jpg_1", "label_0", "label_1", "user_id", *OURS}
LABELS = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5), "both_bad": (0.5, 0.5), "skip": (None, None)}


def fits(columns: set[str]) -> bool:
    return {"jpg_0", "jpg_1"} <= columns


def read(path: Path) -> Votes:
    """The pictures are put under `NAME-pictures` beside the file, once all of it is found valid."""
    with Shelf(path) as shelf:
        votes = tuple(_vote(row, shelf) for row in read_rows(path))
        return Votes(votes, pictures=shelf.found, prompts=prompts_of(votes), folder=path.parent)


def _vote(row: Row, shelf: Shelf) -> Vote:
    prompt = row.text("caption")
    a, b = _image(row, "jpg_0", shelf), _image(row, "jpg_1", shelf)
    rest = {k: v for k, v in row.rest(DERIVED).items() if v is not None}
    about = row.mapping("about") if "about" in row.values else keep_columns({}, rest)
    user = row.values.get("user_id")
    annotator = row.text("annotator", "") or ("" if user is None else str(user))
    return Vote(row.text("prompt_id", prompt_id_of(prompt)), prompt, a, b, _choice(row), annotator, about)


def _image(row: Row, column: str, shelf: Shelf) -> str:
    content = row.values.get(column)
    held = shelf.hold(content) if isinstance(content, bytes) else None
    if held is None:
        raise row.bad(column, "the bytes of a JPEG, PNG, GIF or WebP picture")
    return held


def _choice(row: Row) -> str:
    if row.values.get("choice"):
        if row.values["choice"] not in CHOICES:
            raise row.bad("choice", f"one of {', '.join(CHOICES)}")
        return str(row.values["choice"])
    if row.values.get("has_label") is False:
        return "skip"
    labels = row.number("label_0"), row.number("label_1")
    found = next((choice for choice, given in LABELS.items() if given == labels), None)
    if found is None:
        raise row.bad("label_0", f"1 and 0, 0 and 1, or 0.5 and 0.5 in label_0 and label_1 (label_1 is {labels[1]})")
    return found


def write(votes: Votes, folder: Path) -> list[Path]:
    place = folder / "pickapic.parquet"
    others = _other_types(votes)
    schema = pa.schema([pa.field(n, t) for n, t in {**TYPES, **others, **OURS}.items()])
    with whole_file(place) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(votes.votes), ROWS):
            rows = [_row(votes, vote) for vote in votes.votes[start : start + ROWS]]
            try:
                writer.write_table(_table(rows, schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise TastemakerError(
                    f"votes from {start + 1} on do not fit Pick-a-Pic's columns: {error}"
                ) from error
    return [place]


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        time = pa.types.is_timestamp(field.type)
        arrays.append(pa.array(values, pa.string()).cast(field.type) if time else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _other_types(votes: Votes) -> dict[str, pa.DataType]:
    """Columns that are not on the card, by the first value seen."""
    found: dict[str, pa.DataType] = {}
    for vote in votes.votes:
        for name, value in columns_kept(vote).items():
            if name not in TYPES and name not in OURS and name not in found:
                found[name] = pa.scalar(value).type
    return found


def _row(votes: Votes, vote: Vote) -> dict[str, Any]:
    kept: Mapping[str, Any] = columns_kept(vote)
    labels = LABELS[vote.choice]
    uids = [kept.get(f"image_{i}_uid", image) for i, image in enumerate((vote.image_a, vote.image_b))]
    best = {"a": uids[0], "b": uids[1]}.get(vote.choice)
    return {
        "are_different": vote.image_a != vote.image_b,
        "best_image_uid": best,
        "image_0_uid": uids[0],
        "image_1_uid": uids[1],
        **kept,
        "caption": vote.prompt,
        "has_label": vote.choice != "skip",
        "jpg_0": picture_bytes(votes, vote.image_a),
        "jpg_1": picture_bytes(votes, vote.image_b),
        "label_0": labels[0],
        "label_1": labels[1],
        "user_id": int(vote.annotator) if vote.annotator.isdecimal() and int(vote.annotator) < 2**63 else None,
        "prompt_id": vote.prompt_id,
        "annotator": vote.annotator,
        "choice": vote.choice,
        "about": as_json(dict(vote.about), "about"),
    }
