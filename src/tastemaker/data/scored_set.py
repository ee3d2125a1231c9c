"""Pictures of one size with captions of one or two kinds and the scores of each, in a folder read at random:

pictures.npy      uint8 (N, 3, S, S); rows are read as they are needed, so the set may be larger than the memory
samples.parquet   a row a picture: caption_0, caption_1 and, for each of these, every reward's score
about.json        what the set was made from, with the rewards' versions; written last, so it says that all is there

Each score stays with the caption that it was made for. Letters: V kinds of captions, N pictures, R rewards, S side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import TastemakerError
from ..picture_bytes import from_bytes
from ..records import Prompt, Provenance
from .files import parse_json, read_text, whole_file, write_text

FORMAT = 1


@dataclass(frozen=True)
class Piece:
    """Some pictures (b, 3, S, S) uint8, their captions, V of b, and scores (V, b, R), NaN where one is missing."""

    pictures: Tensor
    captions: Sequence[Sequence[str]]
    scores: Tensor


@dataclass(frozen=True)
class ScoredSet:
    """`set[i]` is (picture (3, S, S) float32 in [0, 1], Prompt of its first caption). captions: V of N; scores
    (V, N, R); rewards: R names with their versions, in order; rows (N,): which pictures of the folder these are."""

    pictures: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    scores: Tensor
    rewards: Mapping[str, Provenance]
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        pixels = np.array(self.pictures[int(self.rows[index])])
        return from_bytes(torch.from_numpy(pixels)), Prompt(self.captions[0][index])

    def take(self, rows: Tensor) -> ScoredSet:
        """Only the rows (n,) int64 of this set."""
        captions = tuple(tuple(kind[i] for i in rows.tolist()) for kind in self.captions)
        return replace(self, captions=captions, scores=self.scores[:, rows], rows=self.rows[rows])


def write_scored_set(
    folder: str | Path,
    size: int,
    count: int,
    rewards: Mapping[str, Provenance],
    source: Mapping[str, Any],
    pieces: Iterable[Piece],
) -> None:
    """`count` pictures of `size` x `size`, piece after piece. source: plain values that say what they are.

    Raises TastemakerError where there are fewer or more than `count`.
    """
    folder, held = Path(folder), list[pa.Table]()
    with whole_file(folder / "pictures.npy") as path:
        pictures = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, size, size))
        done = 0
        for piece in pieces:
            if done + len(piece.pictures) <= count:
                pictures[done : done + len(piece.pictures)] = piece.pictures.numpy()
            done += len(piece.pictures)
            held.append(_table(piece, list(rewards)))
        if done != count:
            raise TastemakerError(f"expected {count} pictures for {folder}, got {done}")
        pictures.flush()
    with whole_file(folder / "samples.parquet") as path:
        pq.write_table(pa.concat_tables(held), path)
    about = {"format": FORMAT, "source": source, "rewards": {name: asdict(p) for name, p in rewards.items()}}
    write_text(folder / "about.json", json.dumps(about, indent=1) + "\n")


def _table(piece: Piece, rewards: Sequence[str]) -> pa.Table:
    columns: dict[str, Any] = {f"caption_{v}": list(kind) for v, kind in enumerate(piece.captions)}
    for v, scores in enumerate(piece.scores.float().numpy()):
        columns |= {_column(v, name): scores[:, j] for j, name in enumerate(rewards)}
    return pa.table(columns)


def _column(kind: int, reward: str) -> str:
    return f"score_{kind} {reward}"


def holds_scored_set(folder: str | Path) -> bool:
    return (Path(folder) / "about.json").is_file()


def read_scored_set(folder: str | Path, source: Mapping[str, Any]) -> ScoredSet:
    """What `write_scored_set` wrote of the same `source`. Raises TastemakerError where it was made from another one,
    or is not whole."""
    folder = Path(folder)
    said = parse_json(read_text(folder / "about.json"), str(folder / "about.json"))
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise TastemakerError(f"{folder} holds no scored set of format {FORMAT}; take another folder")
    wanted = json.loads(json.dumps(source))
    if said.get("source") != wanted:
        was = said.get("source") or {}
        differing = sorted(k for k in {**was, **wanted} if was.get(k) != wanted.get(k))
        raise TastemakerError(
            f"{folder} holds a scored set that was made from something else: {', '.join(differing)} differ(s); take "
            "another folder, or remove this one"
        )
    rewards = {name: Provenance(**row) for name, row in said["rewards"].items()}
    try:
        pictures, table = np.load(folder / "pictures.npy", mmap_mode="r"), pq.read_table(folder / "samples.parquet")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TastemakerError(f"{folder} holds no whole scored set ({error}); remove it and begin again") from error
    kinds = range(sum(name.startswith("caption_") for name in table.column_names))
    scores = [[table[_column(v, name)].to_numpy() for name in rewards] for v in kinds]  # V of R of (N,)
    values = torch.from_numpy(np.array(scores, np.float32)).reshape(len(kinds), len(rewards), -1).transpose(1, 2)
    captions = tuple(tuple(table[f"caption_{v}"].to_pylist()) for v in kinds)
    return ScoredSet(pictures, captions, values.contiguous(), rewards, torch.arange(len(pictures)))
