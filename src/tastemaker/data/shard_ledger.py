"""What has been scored, for good: a line of JSON per shard, appended and flushed after its files are in their place.

A line that a kill cut short is dropped when the ledger is opened next, and its shard is scored anew; so a shard is in
the ledger if and only if its files are whole. Of several lines about one shard and reward the last one counts. One
process writes at a time: it holds a lock on the file, which goes with the process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import TastemakerError, UnknownName
from ..records import Provenance
from .shard_scores import ShardScores, read_shard

NAME = "scores.ledger.jsonl"


@dataclass(frozen=True)
class Column:
    """One reward's scores of one shard. file: below the ledger's folder. words: which the pictures were scored
    against. nans: samples that the reward itself gave no score."""

    file: str
    size: int
    provenance: Provenance
    words: str
    nans: int = 0


@dataclass(frozen=True)
class Entry:
    """One commit: the shard as it was, its rows, how many of them have an error, what was wrong with the shard."""

    shard: str
    stamp: str
    sha256: str
    rows: int
    unscored: int
    columns: Mapping[str, Column]
    fault: str = ""
    examples: tuple[str, ...] = field(default=())  # the first errors


Commits = dict[str, dict[str, Entry]]  # shard -> column -> the commit that counts


class ShardLedger:
    """The commits of a folder of scores, open for more of them. Made by `open_ledger`."""

    def __init__(self, file: BinaryIO, scored: Commits):
        self._file, self.scored = file, scored

    def commit(self, entry: Entry) -> None:
        """On the disk when this returns. Raises TastemakerError where the disk takes no more."""
        try:
            self._file.write(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise TastemakerError(
                f"cannot write {self._file.name}: {error.strerror or error}; run it again"
            ) from error
        _note(self.scored, entry)


@contextmanager
def open_ledger(folder: Path) -> Iterator[ShardLedger]:
    """The ledger of a folder, made if there is none; a last line that was cut short is taken away. Raises
    TastemakerError where another process has it open, or a line cannot be read."""
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        raise TastemakerError(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        _lock(file, path)
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        file.truncate(whole)
        yield ShardLedger(file, _parsed(content[:whole], path))


def read_ledger(folder: str | Path) -> Commits:
    """What is scored in a folder. Raises TastemakerError where it has no ledger, or a line cannot be read."""
    path = Path(folder) / NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TastemakerError(f"{folder} holds no scores of shards: {error.strerror or error}: {path}") from error
    return _parsed(content[: content.rfind(b"\n") + 1], path)


def read_scored(folder: str | Path, names: list[str]) -> Iterator[ShardScores]:
    """Shard after shard, each with all of `names`. Raises UnknownName for one that was never scored, and
    TastemakerError naming a shard that lacks one or was changed between the scoring of two."""
    scored = read_ledger(folder)
    known = {column for columns in scored.values() for column in columns}
    for name in names:
        if name not in known:
            raise UnknownName("score", name, known, f"{folder} holds scores of these")
    for shard, columns in sorted(scored.items()):
        lacking = [name for name in names if name not in columns]
        if lacking:
            raise TastemakerError(f"{shard} has no scores of {', '.join(lacking)}; score it with the same --out")
        if len({columns[name].sha256 for name in names}) > 1:
            raise TastemakerError(f"{shard} was changed between the scoring of {', '.join(names)}; score it --again")
        yield read_shard(shard, {name: Path(folder) / columns[name].columns[name].file for name in names})


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two commands apart
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TastemakerError(f"another command is writing scores to {path.parent}; wait for it or end it") from None


def _parsed(content: bytes, path: Path) -> Commits:
    scored: Commits = {}
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            entry = _entry(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TastemakerError(
                f"{path} line {number} is no commit of a shard ({type(error).__name__}: {error}); the scores are "
                "whole, but the line has to be mended or taken out"
            ) from error
        _note(scored, entry)
    return scored


def _entry(said: dict[str, Any]) -> Entry:
    columns = {
        name: Column(**{**column, "provenance": Provenance(**column["provenance"])})
        for name, column in said["columns"].items()
    }
    return Entry(**{**said, "columns": columns, "examples": tuple(said["examples"])})


def _note(scored: Commits, entry: Entry) -> None:
    for column in entry.columns:
        scored.setdefault(entry.shard, {})[column] = entry
