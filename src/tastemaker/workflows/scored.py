"""Scored sets to train on (data/scored_set.py): of the embedded world, or of shards with their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..data.images import crop_square, decode_image, resize
from ..data.scored_set import Piece, ScoredSet, holds_scored_set, read_scored_set, write_scored_set
from ..data.shard_ledger import read_ledger, read_scored
from ..data.shard_scores import ShardScores
from ..data.shards import Sample, Shard, Words, list_shards, samples
from ..errors import TastemakerError, UnknownName
from ..picture_bytes import as_bytes, from_bytes
from ..protocols import Reward
from ..ranks import any_of, on_first
from ..records import Provenance
from ..sampling import score_batch
from ..world.dataset import EmojiWorld

PIECE = 64  # pictures at a time


class Source(Protocol):
    """What a scored set is made from."""

    @property
    def count(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def rewards(self) -> Mapping[str, Provenance]: ...
    @property
    def about(self) -> dict[str, Any]: ...  # plain values that tell this set from others
    def pieces(self) -> Iterator[Piece]: ...


def kept_set(folder: Path, source: Source) -> ScoredSet:
    """The set of that source in the folder, made now if it is not there: in the first process, the others wait."""
    about = source.about | {"rewards": {name: asdict(p) for name, p in source.rewards.items()}}
    if not any_of(holds_scored_set(folder))[0]:
        on_first(lambda: _make(folder, source, about))
    return read_scored_set(folder, about)


def _make(folder: Path, source: Source, about: Mapping[str, Any]) -> None:
    pieces = track(source.pieces(), "scoring the pictures", -(-source.count // PIECE), console=Console(stderr=True))
    write_scored_set(folder, source.size, source.count, source.rewards, about, pieces)


# the embedded world


@dataclass(frozen=True)
class WorldSource:
    """The first `count` pictures of a world with its captions and, for synthetic ones, what they really show."""

    world: EmojiWorld
    count: int
    synthetic: bool
    judges: Sequence[Reward]

    @property
    def size(self) -> int:
        return self.world.size

    @property
    def rewards(self) -> Mapping[str, Provenance]:
        return {r.name: r.provenance for r in self.judges}

    @property
    def about(self) -> dict[str, Any]:
        return {"world": asdict(self.world), "pictures": self.count, "synthetic": self.synthetic}

    def pieces(self) -> Iterator[Piece]:
        for first in range(0, self.count, PIECE):
            yield self._piece(range(first, min(first + PIECE, self.count)))

    def _piece(self, numbers: Iterable[int]) -> Piece:
        found = [self.world.example(k) for k in numbers]
        images = torch.from_numpy(np.stack([e.picture for e in found])).permute(0, 3, 1, 2)
        pixels = as_bytes(images.contiguous())
        kinds = [[e.caption for e in found]] + ([[e.truth for e in found]] if self.synthetic else [])
        scores = torch.stack([score_batch(self.judges, from_bytes(pixels), kind) for kind in kinds])
        return Piece(pixels, [[p.text for p in kind] for kind in kinds], scores)


# shards


class ShardSource:
    """The pictures of `data` whose scores lie in `folder`, cropped to squares of `size`. fields: whose captions, one
    or two.

    A picture without a score for its error, or without one of its captions, is left out; `left_out` counts them.
    Raises UnknownName for scores that are not there, TastemakerError where two shards were scored by other versions,
    a shard is gone, or nothing is left.
    """

    def __init__(self, data: Path, folder: Path, names: Sequence[str], fields: Sequence[str], size: int):
        self.size, self.fields, self.names = size, tuple(fields), tuple(names)
        self.columns = [Words(field).column(name) for field in fields for name in names]  # V R
        self.shards = {shard.name: shard for shard in list_shards(data)}
        self.ledger, self.folder = read_ledger(folder), folder
        self.rewards = self._versions()
        usable = [self._usable(scored) for scored in self._scored()]
        self.count, self.left_out = sum(sum(u) for u in usable), sum(len(u) - sum(u) for u in usable)
        if not self.count:
            raise TastemakerError(f"{folder} holds no picture that has every caption and no error")

    def _scored(self) -> Iterator[ShardScores]:
        for scored in read_scored(self.folder, self.columns):
            if scored.shard not in self.shards:
                raise TastemakerError(f"{scored.shard} was scored and is not there any more; it is in {self.folder}")
            yield scored

    def _versions(self) -> dict[str, Provenance]:
        found: dict[str, Provenance] = {}
        for shard, columns in sorted(self.ledger.items()):
            for column in (c for c in self.columns if c in columns):
                name, now = column.partition("@")[0], columns[column].columns[column].provenance
                if found.setdefault(name, now) != now:
                    raise TastemakerError(
                        f"{shard} was scored with '{name}' as {now}, others with {found[name]}; score them alike, "
                        "with --again"
                    )
        for name in self.names:
            if name not in found:
                raise UnknownName("score", name, found, f"{self.folder} holds scores of these")
        return {name: found[name] for name in self.names}

    @property
    def about(self) -> dict[str, Any]:
        commits = sorted((s, columns[c].sha256) for s, columns in self.ledger.items() for c in columns)
        digest = hashlib.sha256(repr(commits).encode()).hexdigest()
        return {"shards": digest, "size": self.size, "fields": list(self.fields)}

    def _usable(self, scored: ShardScores) -> list[bool]:
        """Of each row."""
        words = zip(*(self._words(scored, v) for v in range(len(self.fields))))
        return [error is None and all(own) for error, own in zip(scored.errors, words)]

    def _words(self, scored: ShardScores, kind: int) -> tuple[str, ...]:
        """The captions of a kind, which all rewards were given alike."""
        each = len(self.names)
        given = scored.captions[kind * each : (kind + 1) * each]
        for name, captions in zip(self.names, given):
            if captions != given[0]:
                k = next(i for i, (a, b) in enumerate(zip(captions, given[0])) if a != b)
                raise TastemakerError(
                    f"{scored.shard}: '{scored.keys[k]}' was scored by {self.names[0]} with other words than by "
                    f"{name}; score it again with one of them"
                )
        return given[0]

    def pieces(self) -> Iterator[Piece]:
        for scored in self._scored():
            shard, usable = self.shards[scored.shard], self._usable(scored)
            held: list[tuple[Tensor, int]] = []
            # scores first, so that the end of a damaged shard, after its last score, is never read
            for k, sample in zip(range(len(usable)), samples(shard, Words(self.fields[0]))):
                if usable[k]:
                    held.append((self._pixels(shard, scored, k, sample), k))
                if len(held) == PIECE:
                    yield self._piece(scored, held)
                    held = []
            if held:
                yield self._piece(scored, held)

    def _pixels(self, shard: Shard, scored: ShardScores, k: int, sample: Sample) -> Tensor:
        same = hashlib.sha256(sample.content).hexdigest() == scored.sha256[k]
        if sample.key != scored.keys[k] or not same:
            raise TastemakerError(
                f"{shard.name} was changed since it was scored: at '{scored.keys[k]}' it has "
                f"{'another picture' if sample.key == scored.keys[k] else repr(sample.key)}; score it --again"
            )
        image = crop_square(decode_image(sample.content, f"{shard.name}: {sample.key}"))
        return as_bytes(resize(image, self.size, self.size))

    def _piece(self, scored: ShardScores, held: Sequence[tuple[Tensor, int]]) -> Piece:
        rows = [k for _, k in held]
        words = [[own[k] for k in rows] for own in (self._words(scored, v) for v in range(len(self.fields)))]
        values = scored.values[rows].reshape(len(rows), len(self.fields), -1).transpose(0, 1)  # (V, b, R)
        return Piece(torch.stack([pixels for pixels, _ in held]), words, values)
