"""Score one shard: read on one thread, decode on others, each picture brought to the rewards' sizes once.

Memory stays that of a few batches, whatever the shard's size. Letters: n pictures of a window, b of one size, R.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from ..data.images import content_hash
from ..data.shard_ledger import Column, Entry
from ..data.shard_scores import Scored, ShardWriter
from ..data.shards import SCORES, BrokenShard, Sample, Shard, Words, samples, shard_hash, stamp
from ..devices import place
from ..errors import TastemakerError
from ..protocols import Reward
from ..records import Prompt
from ..rewards.table import load_rewards
from .reading import HELD, Look, Read, decode_ahead, decoded
from .score import look_of, score_seen

EXAMPLES = 5  # errors of a shard that its commit tells


@dataclass(frozen=True)
class Work:
    """One shard to score. folder: of the ledger; columns: reward's name -> what its scores are called there."""

    shard: Shard
    folder: Path
    columns: Mapping[str, str]
    words: Words
    batch: int


@dataclass(frozen=True)
class Failed:
    """A shard that was not scored. stop: the next one would fail alike."""

    shard: str
    reason: str
    stop: bool = False


Outcome = Entry | Failed


def load_on(names: Sequence[str], device: str) -> list[Reward]:
    """Rewards with their networks on a device; one without a network works where its pictures are."""
    return place(load_rewards(names), torch.device(device))


def score_shard(rewards: Sequence[Reward], work: Work) -> Outcome:
    """The shard's scores on the disk, and what to write into the ledger; or why there are none."""
    try:
        return _scored(rewards, work)
    except RewardFailed as error:
        return Failed(work.shard.name, f"{work.shard.name}: {error}", stop=True)
    except TastemakerError as error:
        return Failed(work.shard.name, str(error))
    except OSError as error:
        where = error.filename or work.folder
        return Failed(work.shard.name, f"cannot write {where}: {error.strerror or error}", stop=True)


class RewardFailed(TastemakerError):
    """A reward raised, or gave something that is no score; other shards will not fare better."""


def _scored(rewards: Sequence[Reward], work: Work) -> Entry:
    wanted = [reward for reward in rewards if reward.name in work.columns]
    paths = {work.columns[r.name]: score_path(work, work.columns[r.name]) for r in wanted}
    before, content = stamp(work.shard), shard_hash(work.shard)
    unscored, told = 0, list[str]()
    nans = torch.zeros(len(wanted), dtype=torch.int64)
    with ShardWriter(paths, {work.columns[r.name]: r.provenance for r in wanted}) as writer:
        source = _Source(work)
        for rows, values in _windows(wanted, source, work):
            writer.add(rows, values)
            errors = [row.error for row in rows if row.error]
            unscored, told = unscored + len(errors), (told + errors)[:EXAMPLES]
            nans += values.isnan().sum(0) - len(errors)
        if stamp(work.shard) != before:
            raise TastemakerError(f"{work.shard.name} was changed while it was read; run this again")
        sizes = writer.commit()
    columns = {
        name: Column(
            paths[name].relative_to(work.folder).as_posix(), sizes[name], r.provenance, str(work.words), int(n)
        )
        for (r, name), n in zip([(r, work.columns[r.name]) for r in wanted], nans)
    }
    return Entry(work.shard.name, before, content, writer.rows, unscored, columns, source.fault, tuple(told))


def score_path(work: Work, column: str) -> Path:
    """Beside or in place of the shard: its name with the scores' in place of the suffix."""
    return work.folder / f"{work.shard.stem}.{quote(column, safe='@ ')}{SCORES}"


class _Source:
    """The shard's samples; where it is damaged they end, and `fault` says why. Raises BrokenShard without any."""

    def __init__(self, work: Work):
        self.work, self.fault = work, ""

    def __iter__(self) -> Iterator[tuple[Sample, bytes, str]]:
        found = False
        try:
            for sample in samples(self.work.shard, self.work.words):
                found = True
                yield sample, sample.content, f"{self.work.shard.name}: {sample.key}"
        except BrokenShard as error:
            if not found:
                raise
            self.fault = str(error)


def _windows(rewards: Sequence[Reward], source: _Source, work: Work) -> Iterator[tuple[list[Scored], Tensor]]:
    """(n rows, (n, R) scores) in the order of the shard; n is a batch, or HELD of them where pictures are taken at
    their own size, so that those of one size meet."""
    looks = tuple(dict.fromkeys(look_of(reward) for reward in rewards))
    size = work.batch * (HELD if None in looks else 1)
    with closing(decode_ahead(source, looks, work.batch)) as coming:
        # one at a time: what is still to be decoded when the source ends is dropped
        opened = (_opened(sample, read, looks, work) for sample, read in coming)
        while window := list(itertools.islice(opened, size)):
            yield [row for row, _ in window], _values(rewards, looks, window, work.batch)


def _opened(
    sample: Sample, coming: Future[Read], looks: Sequence[Look], work: Work
) -> tuple[Scored, dict[Look, Tensor]]:
    """The sample's row, and its picture by each look: none where the row has an error."""
    content, where = sample.content, f"{work.shard.name}: {sample.key}"
    sha256, seen, error = "", dict[Look, Tensor](), sample.fault
    try:
        read = coming.result()
        sha256 = read.sha256 if content else ""
        seen = {} if error else decoded(read, looks, where)
    except TastemakerError as broken:
        sha256, error = sha256 or content_hash(content), error or str(broken)
    return Scored(sample.key, sha256, sample.caption, error or None), seen


def _values(
    rewards: Sequence[Reward], looks: Sequence[Look], window: list[tuple[Scored, dict[Look, Tensor]]], batch: int
) -> Tensor:
    """(n, R), NaN where there is no picture; pictures of one size go together."""
    values = torch.full((len(window), len(rewards)), float("nan"))
    alike: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
    for i, (_, seen) in enumerate(window):
        if seen:
            alike[tuple(picture.shape for picture in seen.values())].append(i)
    for places in (group[k : k + batch] for group in alike.values() for k in range(0, len(group), batch)):
        seen = {look: torch.stack([window[i][1][look] for i in places]) for look in looks}
        values[places] = _judged(rewards, seen, [Prompt(window[i][0].caption) for i in places])
    return values


def _judged(rewards: Sequence[Reward], seen: dict[Look, Tensor], prompts: Sequence[Prompt]) -> Tensor:
    try:
        return score_seen(rewards, seen, prompts)
    except TastemakerError as error:
        raise RewardFailed(str(error)) from error
