"""Formats of human preference data, a file each: ImageReward, ImageRewardDB, HPDv2, Pick-a-Pic and our own.

| name | what is written | holds |
|---|---|---|
| jsonl, csv, parquet | our own: one file, or a table for each kind of answer | everything |
| imagereward | imagereward.json | one ranking per prompt |
| imagerewarddb-flat, -group, -pair | Parquet, or with `-json` behind JSON | one ranking, mean ratings; pairs |
| hpdv2 | train.json and test.json | votes; rankings with each person's |
| pickapic | pickapic.parquet with the pictures in it | votes |

Whatever a foreign format holds, the answers as given are written beside it in raw.jsonl, and a folder is read back
from there; so nothing is lost on the way out and in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import TastemakerError, UnknownName
from ..votes import Votes
from . import hpdv2, imagereward, imagerewarddb, own, pickapic
from .rows import columns_of

Read = Callable[[Path], Votes]
Write = Callable[[Votes, Path], list[Path]]


def _beside_raw(write: Write) -> Write:
    def both(votes: Votes, folder: Path) -> list[Path]:
        return [*write(votes, folder), *own.write_jsonl(votes, folder, "raw.jsonl")]

    return both


SHAPES = [(shape, suffix) for shape in imagerewarddb.ROWS for suffix in (".parquet", ".json")]
WRITERS: dict[str, Write] = {
    "jsonl": own.write_jsonl,
    "csv": own.write_csv,
    "parquet": own.write_parquet,
    "imagereward": _beside_raw(imagereward.write),
    **{
        f"imagerewarddb-{shape}{'-json' * (suffix == '.json')}": _beside_raw(imagerewarddb.write(shape, suffix))
        for shape, suffix in SHAPES
    },
    "hpdv2": _beside_raw(hpdv2.write),
    "pickapic": _beside_raw(pickapic.write),
}
READERS: dict[str, tuple[Callable[[set[str]], bool], Read]] = {  # the first whose columns are there reads it
    "pickapic": (pickapic.fits, pickapic.read),
    "imagereward": (imagereward.fits, imagereward.read),
    "hpdv2": (hpdv2.fits, hpdv2.read),
    "imagerewarddb": (imagerewarddb.fits, imagerewarddb.read),
    "jsonl": (own.fits, own.read_jsonl_votes),
    "csv": (own.fits, own.read_table),
    "parquet": (own.fits, own.read_table),
}
OWN = ("jsonl", "csv", "parquet")


def read(path: Path, format: str | None = None) -> Votes:
    """See `tastemaker.data.votes.read_votes`."""
    if path.is_dir():
        found = own.read_folder(path)
        if found is None:
            raise TastemakerError(
                f"{path} is no folder of votes: it holds neither votes.* nor raw.jsonl; name a file"
            )
        path = found
    if not path.is_file():
        raise TastemakerError(f"there is no file or folder {path}; expected one with votes")
    name = _known(format) if format else recognise(path)
    return own.refuse_empty(READERS[name][1](path), path)


def _known(format: str) -> str:
    name = "imagerewarddb" if format in WRITERS and format.startswith("imagerewarddb") else format
    if name not in READERS:
        raise UnknownName("format of votes", format, [*WRITERS, "imagerewarddb"])
    return name


def recognise(path: Path) -> str:
    """The format of a file by its suffix and columns. Raises TastemakerError where none fits."""
    columns, suffix = columns_of(path), path.suffix.lower()
    for name, (fits, _) in READERS.items():
        if fits(columns) and (name not in OWN or suffix == f".{name}"):
            return name
    listed = ", ".join(sorted(columns)) or "none"
    raise TastemakerError(f"cannot tell the format of {path} from its columns ({listed}); docs/votes.md lists them")


def write(votes: Votes, folder: Path, format: str) -> list[Path]:
    """See `tastemaker.data.votes.write_votes`."""
    if format not in WRITERS:
        raise UnknownName("format of votes", format, WRITERS)
    return WRITERS[format](votes, folder)
