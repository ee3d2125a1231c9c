"""Scores of the samples of one shard: a Parquet file per reward, STEM.REWARD.scores.parquet.

A file per reward, and not a column in a common file: adding or replacing one reward then writes that reward's file
alone and cannot harm another's, rewards may be scored at the same time, and each has the caption that it was scored
against. The price is that keys, hashes and captions stand in each file, about 80 bytes a picture before captions.

| column | what |
|---|---|
| key, sha256 | the sample, in the order of the shard; the hash of its picture's file, empty where there is none |
| caption | the words that it was scored against |
| score | float32, NaN where there is none |
| error | why there is none; null where there is one, and where the reward itself gave NaN |
| model, weight_hash, preprocessing | the reward's provenance, the same in every row |

Letters: n samples, R rewards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..errors import TastemakerError
from ..records import Provenance

ROW_GROUP = 2048  # rows held before they are written
SHORT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("sha256", pa.string()),
        ("caption", pa.string()),
        ("score", pa.float32()),
        ("error", pa.string()),
        ("model", SHORT),
        ("weight_hash", SHORT),
        ("preprocessing", SHORT),
    ]
)
PARTIAL = ".partial"


@dataclass(frozen=True)
class Scored:
    """One sample's row without its score."""

    key: str
    sha256: str
    caption: str
    error: str | None


class ShardWriter:
    """Rows to one file per reward, under names that end in .partial until `commit` gives all of them their own.

    A context manager: what was not committed is removed at its end, and what a kill leaves behind is never read.
    """

    def __init__(self, paths: Mapping[str, Path], rewards: Mapping[str, Provenance]):
        self.paths, self.rows = paths, 0
        self.rewards = {column: rewards[column] for column in paths}
        self._waiting: list[Scored] = []
        self._values: list[np.ndarray] = []
        self._partial = {c: p.with_name(f".{p.name}.{os.getpid()}{PARTIAL}") for c, p in paths.items()}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        self._writers = {c: pq.ParquetWriter(p, SCHEMA, compression="zstd") for c, p in self._partial.items()}

    def add(self, rows: Sequence[Scored], values: Tensor) -> None:
        """values: (n, R) float32, a column per reward in the order of `paths`."""
        self._waiting += rows
        self._values.append(values.float().numpy())
        self.rows += len(rows)
        if len(self._waiting) >= ROW_GROUP:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        columns = list(zip(*(astuple(row) for row in self._waiting)))
        keys, hashes, captions, errors = (pa.array(column, pa.string()) for column in columns)
        values = np.concatenate(self._values)  # (n, R)
        for i, (column, writer) in enumerate(self._writers.items()):
            score = pa.array(values[:, i], pa.float32())
            said = [_same(text, len(values)) for text in astuple(self.rewards[column])]
            writer.write_batch(pa.record_batch([keys, hashes, captions, score, errors, *said], schema=SCHEMA))
        self._waiting, self._values = [], []

    def commit(self) -> dict[str, int]:
        """Every file whole, on the disk, and under its name; their sizes in bytes."""
        self._write()
        for column, writer in self._writers.items():
            writer.close()
            with self._partial[column].open("rb+") as file:
                os.fsync(file.fileno())
        for column, path in self.paths.items():
            os.replace(self._partial[column], path)
        for folder in {path.parent for path in self.paths.values()}:
            _sync_folder(folder)
        return {column: path.stat().st_size for column, path in self.paths.items()}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for column, writer in self._writers.items():
            with suppress(OSError):  # on a full disk it fails a second time
                writer.close()
            self._partial[column].unlink(missing_ok=True)


def _same(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))


def _sync_folder(folder: Path) -> None:
    """The new names reach the disk only with their folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class ShardScores:
    """Some rewards of one shard, a row per sample in the shard's order."""

    shard: str
    keys: tuple[str, ...]  # n
    sha256: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]  # R of n: each reward's own words
    names: tuple[str, ...]  # R
    values: Tensor  # (n, R) float32, NaN where there is none
    errors: tuple[str | None, ...]  # n


def read_shard(shard: str, paths: Mapping[str, Path]) -> ShardScores:
    """Rewards by name and where they lie. Raises TastemakerError where a file is missing or damaged, or two were
    scored on other samples."""
    tables = [_read(path) for path in paths.values()]
    first = tables[0]
    for path, table in zip(paths.values(), tables):
        if not (table["key"].equals(first["key"]) and table["sha256"].equals(first["sha256"])):
            raise TastemakerError(
                f"{path} was scored on another content of {shard} than {next(iter(paths.values()))}: keys or hashes "
                "differ; score both again"
            )
    values = np.stack([table["score"].to_numpy() for table in tables], 1)
    return ShardScores(
        shard,
        tuple(first["key"].to_pylist()),
        tuple(first["sha256"].to_pylist()),
        tuple(tuple(table["caption"].to_pylist()) for table in tables),
        tuple(paths),
        torch.from_numpy(np.array(values, np.float32)),
        tuple(first["error"].to_pylist()),
    )


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise TastemakerError(f"cannot read {path} as scores of a shard: {str(error).splitlines()[0]}") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise TastemakerError(f"{path} holds no scores of a shard: it lacks the column(s) {', '.join(missing)}")
    return table
