"""Pictures of a list in batches, read ahead: threads read, hash, decode and resize the next while networks compute.

A look is what is made of a picture: a view of encoders/pixels.py, (3, S, S), or None, the picture at its own size,
(3, H, W). A plain file (8-bit RGB, opaque, upright) goes to a view as the bytes it was decoded to, any other through
`decode_image`: both with the pixels that the view makes of its tensor. Letters: b batch, H W, S the view's side.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from ..data.images import content_hash, decode_image, read_bytes
from ..encoders.pixels import View
from ..errors import TastemakerError

HELD = 4  # batches of pictures kept waiting for others of their size
READERS = min(8, max(1, (os.cpu_count() or 1) // 2))  # threads; the other half of the processors is the network's

Look = View | None
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One picture to be scored: its place in the list, how it is named, where it lies, its words."""

    index: int
    name: str
    path: Path
    prompt: str


@dataclass(frozen=True)
class Read:
    """A file's bytes, their sha256, and the picture by each look; no looks where the file is not plain."""

    content: bytes
    sha256: str
    seen: dict[Look, Tensor]


def batches(
    jobs: Sequence[Job],
    batch: int,
    hashes: MutableMapping[int, str],
    errors: MutableMapping[int, str],
    looks: Sequence[Look],
) -> Generator[tuple[list[Job], dict[Look, Tensor]], None, None]:
    """Pictures by each look, (b, 3, S, S) or (b, 3, H, W) of one size, b <= batch; each file is read and decoded
    once. Fills `hashes` and `errors` by the jobs' index.

    At most HELD batches wait for others of their size; past that the largest group goes as it is. One more batch is
    being read ahead.
    """
    waiting: dict[tuple[torch.Size, ...], list[tuple[Job, dict[Look, Tensor]]]] = defaultdict(list)
    for job, coming in read_ahead(jobs, looks, batch):
        try:
            read = coming.result()
            seen = decoded(read, looks, str(job.path))
        except TastemakerError as error:
            errors[job.index] = str(error)
            continue
        hashes[job.index] = read.sha256
        size = tuple(picture.shape for picture in seen.values())
        waiting[size].append((job, seen))
        if len(waiting[size]) >= batch or sum(map(len, waiting.values())) >= HELD * batch:
            yield _stacked(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))))
    yield from map(_stacked, waiting.values())


def read_ahead(jobs: Sequence[Job], looks: Sequence[Look], ahead: int) -> Iterator[tuple[Job, Future[Read]]]:
    """In the order of the jobs, `ahead` of which are being read or wait to be taken."""
    return ahead_of(jobs, lambda job: _read(read_bytes(job.path), looks, str(job.path)), ahead)


def decode_ahead(
    contents: Iterable[tuple[T, bytes, str]], looks: Sequence[Look], ahead: int
) -> Generator[tuple[T, Future[Read]], None, None]:
    """As `read_ahead`, of (anything, a file's bytes, its name for messages)."""
    for item, coming in ahead_of(contents, lambda one: _read(one[1], looks, one[2]), ahead):
        yield item[0], coming


def ahead_of(items: Iterable[T], make: Callable[[T], Read], ahead: int) -> Iterator[tuple[T, Future[Read]]]:
    """`make(item)` in other threads, in the order of the items; an item is taken when its turn is `ahead` away."""
    pool, coming = ThreadPoolExecutor(READERS, "read"), deque[tuple[T, Future[Read]]]()
    try:
        for item in items:
            coming.append((item, pool.submit(make, item)))
            if len(coming) > ahead:
                yield coming.popleft()
        while coming:
            yield coming.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(content: bytes, looks: Sequence[Look], where: str) -> Read:
    picture = plain_picture(content)
    if picture is None:
        return Read(content, content_hash(content), {})
    return Read(b"", content_hash(content), _seen(picture, looks, where))


def decoded(read: Read, looks: Sequence[Look], where: str) -> dict[Look, Tensor]:
    """The picture by each look, also of a file that is not plain; for one thread only. Raises TastemakerError where
    it is no picture."""
    return read.seen or _seen(decode_image(read.content, where), looks, where)


def plain_picture(content: bytes) -> Image.Image | None:
    """The picture of a file whose 8-bit RGB is what `decode_image` gives; None where it has to be turned upright,
    laid on white, converted or refused. That is left to `decode_image`, which mutes warnings and so is for one
    thread only."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and others
        return None
    return picture if picture.mode == "RGB" and upright and "transparency" not in picture.info else None


def _seen(picture: Image.Image | Tensor, looks: Sequence[Look], where: str) -> dict[Look, Tensor]:
    try:
        return {look: _by(look, picture) for look in looks}
    except Exception as error:  # a view may be anybody's; a picture of 1 x 3000 may leave nothing to resize
        raise TastemakerError(
            f"cannot bring {where} to the rewards' size: {type(error).__name__}: {error}"
        ) from error


def _by(look: Look, picture: Image.Image | Tensor) -> Tensor:
    """(3, S, S) or (3, H, W) of an RGB picture or a tensor (3, H, W)."""
    if isinstance(picture, Tensor):
        return picture if look is None else look(picture[None])[0]
    if look is not None:
        return look.open(picture)
    bands = np.ascontiguousarray(
        np.asarray(picture).transpose(2, 0, 1)
    )  # while they are bytes: a quarter of the work
    return torch.from_numpy(bands.astype(np.float32) / 255)


def _stacked(pairs: list[tuple[Job, dict[Look, Tensor]]]) -> tuple[list[Job], dict[Look, Tensor]]:
    looks = pairs[0][1]
    return [job for job, _ in pairs], {look: torch.stack([seen[look] for _, seen in pairs]) for look in looks}
