"""What data sets at scale lie in, read from front to back: webdataset tars, Parquet tables with the pictures' bytes,
and folders. One sample is in memory at a time, whatever the shard's size; nothing is unpacked or unpickled.

A shard's name is its path below the input, with slashes. What is wrong with a sample is said in its `fault`; what is
wrong with the shard itself is raised after the samples before it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import TastemakerError, UnknownName
from .datasets import read_words, split_key
from .images import SUFFIXES, read_bytes

SCORES = ".scores.parquet"  # how the files of `shard_scores.py` end; never a shard
WORDS = (".txt", ".json")
KINDS = SUFFIXES | set(WORDS)
PICTURES = ("image", "jpg", "jpeg", "png", "webp", "bytes")  # columns looked for, in this order
KEYS = ("key", "__key__", "id")
ROWS = 16  # of a Parquet table, read at a time
BUFFER = 1 << 20  # bytes of a column read at a time


class BrokenShard(TastemakerError):
    """A shard that ends before its end, or is not what its name says."""


@dataclass(frozen=True)
class Shard:
    """One file or folder of samples. stem: where its scores go, below the folder of the results."""

    name: str
    path: Path
    stem: str


@dataclass(frozen=True)
class Sample:
    """One picture of a shard: its key there, its file's bytes, its words; `fault` where one of them is amiss."""

    key: str
    content: bytes = b""
    caption: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Words:
    """Which words a picture is scored against: the ones of `field`, or `prompt` for all where it is given.

    The field `caption` is a .txt or the entry of that name in a .json beside the picture, or a column; any other is
    an entry or a column.
    """

    field: str = "caption"
    prompt: str | None = None

    def __str__(self) -> str:
        return f"field {self.field}" if self.prompt is None else f"prompt {self.prompt}"

    def column(self, reward: str) -> str:
        """What the scores by these words are called: `reward`, or `reward@field` for another field than `caption`."""
        return reward if self.field == "caption" else f"{reward}@{self.field}"


def list_shards(path: str | Path) -> list[Shard]:
    """A tar, a Parquet file, or all below a folder: tars, Parquet files, and each folder that directly holds
    pictures; by name. Hidden ones and files of scores are passed over.

    Raises TastemakerError where there are none, or two would put their scores into one place.
    """
    path = Path(path)
    found = [_file_shard(path, path.parent)] if _is_file_shard(path) else _below(path) if path.is_dir() else []
    if not found:
        raise TastemakerError(
            f"{path} holds no shards: expected a .tar, a .parquet with pictures, or a folder with these or pictures"
        )
    by_stem: dict[str, Shard] = {}
    for shard in found:
        other = by_stem.setdefault(shard.stem, shard)
        if other is not shard:
            raise TastemakerError(f"{other.name} and {shard.name} would share {shard.stem}; rename one of them")
    return found


def holds_files_of_shards(path: str | Path) -> bool:
    """Whether `path` is a tar or a Parquet file, or a folder with one of these at any depth."""
    path = Path(path)
    return _is_file_shard(path) or (path.is_dir() and any(_is_file_shard(p) for p in _visible(path)))


def _below(folder: Path) -> list[Shard]:
    files = [p for p in _visible(folder) if p.is_file()]
    held = {p.parent for p in files if p.suffix.lower() in SUFFIXES}
    shards = [_file_shard(p, folder) for p in files if _is_file_shard(p)] + [_folder(p, folder) for p in held]
    return sorted(shards, key=lambda shard: shard.name)


def _visible(folder: Path) -> Iterator[Path]:
    return (p for p in folder.rglob("*") if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _is_file_shard(path: Path) -> bool:
    return path.suffix.lower() in (".tar", ".parquet") and not path.name.endswith(SCORES) and path.is_file()


def _file_shard(path: Path, root: Path) -> Shard:
    below = path.relative_to(root)
    return Shard(below.as_posix(), path, below.with_suffix("").as_posix())


def _folder(path: Path, root: Path) -> Shard:
    name = path.relative_to(root).as_posix() if path != root else path.resolve().name
    return Shard(name + "/", path, name)


def stamp(shard: Shard) -> str:
    """How many files, bytes, and the newest change: other content nearly always has another stamp, and it is read
    without reading the content. Raises TastemakerError where the shard is gone."""
    try:
        found = [p.stat() for p in _files(shard)]
    except OSError as error:
        raise TastemakerError(f"cannot read {shard.path}: {error.strerror or error}") from error
    newest = max((one.st_mtime_ns for one in found), default=0)
    return f"{len(found)} {sum(one.st_size for one in found)} {newest}"


def shard_hash(shard: Shard) -> str:
    """sha256 of the file, in hexadecimal; of a folder, of its files' names and their sha256."""
    if not shard.path.is_dir():
        return _file_hash(shard.path)
    listed = "".join(f"{p.name}\0{_file_hash(p)}\n" for p in _files(shard))
    return hashlib.sha256(listed.encode()).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TastemakerError(f"cannot read {path}: {error.strerror or error}") from error


def _files(shard: Shard) -> list[Path]:
    """By name: the file, or the pictures and words of a folder."""
    if not shard.path.is_dir():
        return [shard.path]
    return [shard.path / name for name in _names(shard.path)]


def _names(folder: Path) -> list[str]:
    """Of pictures and words directly in it, sorted. Not paths: these take six times the memory."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _suffix(e.name) in KINDS and e.name[0] != "." and e.is_file())


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def samples(shard: Shard, words: Words) -> Iterator[Sample]:
    """In the order of the shard. A key that came before is a fault of the later sample; so are a missing picture,
    and missing words where `words` asks for some.

    Raises BrokenShard after the samples that could be read where the shard is damaged, UnknownName where a table has
    no such column, TastemakerError where the shard cannot be opened.
    """
    source = _tar if shard.path.suffix.lower() == ".tar" else _parquet
    found = _folder_samples(shard, words) if shard.path.is_dir() else source(shard, words)
    seen: set[int] = set()  # 8 bytes of each key: a hundred thousand take some megabytes
    for sample in found:
        mark = int.from_bytes(hashlib.blake2b(sample.key.encode(), digest_size=8).digest())
        if mark in seen:
            sample = replace(sample, fault=f"duplicate key: '{sample.key}' came before in {shard.name}")
        seen.add(mark)
        yield sample if words.prompt is None else replace(sample, caption=words.prompt)


def _tar(shard: Shard, words: Words) -> Iterator[Sample]:
    """Members of one key (the name up to the first dot of its last part) that follow each other are a sample."""
    key, inside = "", False
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(shard.path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
                if not member.isreg() or member.issparse():
                    continue
                begun, suffix = split_key(member.name)
                if parts and (begun != key or suffix in parts):
                    yield _sample(shard, key, parts, words)
                    parts = {}
                key, inside = begun, True
                parts[suffix], inside = _member(tar, member, suffix), False
            _check_end(tar)
    except tarfile.TarError as error:
        if inside or parts:
            yield (
                Sample(key, fault=f"{shard.name} ends inside '{key}'")
                if inside
                else _sample(shard, key, parts, words)
            )
        after = f", after '{key}'" if key else ""
        raise BrokenShard(f"{shard.name} is no whole, uncompressed tar: {error}{after}") from error
    except OSError as error:
        raise TastemakerError(f"cannot read {shard.path}: {error.strerror or error}") from error
    if parts:
        yield _sample(shard, key, parts, words)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> bytes:
    """Its bytes where they are a picture or words; what else lies in the tar is not read."""
    if suffix not in SUFFIXES and suffix not in WORDS:
        return b""
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end, so raise ReadError unless the archive's own mark is there."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)  # type: ignore[attr-defined]
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end, or the next header, is damaged or cut off")


def _folder_samples(shard: Shard, words: Words) -> Iterator[Sample]:
    """A picture's key is its file's name; its words lie beside it under the same stem."""
    names = _names(shard.path)
    there = set(names)
    for name in names:
        if _suffix(name) in SUFFIXES:
            stem = name.removesuffix(Path(name).suffix)
            yield _from_files(shard, name, [stem + s for s in WORDS if stem + s in there], words)


def _from_files(shard: Shard, name: str, beside: list[str], words: Words) -> Sample:
    try:
        parts = {_suffix(one): read_bytes(shard.path / one) for one in (name, *beside)}
    except TastemakerError as error:
        return Sample(name, fault=str(error))
    return _sample(shard, name, parts, words)


def _sample(shard: Shard, key: str, parts: Mapping[str, bytes], words: Words) -> Sample:
    picture = next((suffix for suffix in sorted(parts) if suffix in SUFFIXES), None)
    if picture is None:
        return Sample(key, fault=f"{shard.name} has no picture of the key '{key}', only {', '.join(sorted(parts))}")
    if words.prompt is not None:
        return Sample(key, parts[picture])
    try:
        return Sample(key, parts[picture], _caption(shard, key, parts, words.field))
    except TastemakerError as error:
        return Sample(key, parts[picture], fault=str(error))


def _caption(shard: Shard, key: str, parts: Mapping[str, bytes], field: str) -> str:
    suffix = next((s for s in WORDS if s in parts and (s == ".json" or field == "caption")), None)
    if suffix is None:
        wanted = f"a .txt or .json with `{field}`" if field == "caption" else f"a .json with `{field}`"
        raise TastemakerError(f"{shard.name} has no caption for '{key}': expected {wanted} beside the picture")
    return read_words(parts[suffix], suffix, field, f"{shard.name}: {key}{suffix}")[0]


def _parquet(shard: Shard, words: Words) -> Iterator[Sample]:
    try:
        # neither the whole file nor a whole row group is held: a row group may be all there is
        with pq.ParquetFile(shard.path, buffer_size=BUFFER, pre_buffer=False) as table:
            picture, key = _columns(shard, table.schema_arrow.names, words)
            wanted = [picture, *([key] if key else []), *([words.field] if words.prompt is None else [])]
            number = 0
            for batch in table.iter_batches(ROWS, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    name = str(row[key]) if key else str(number)
                    yield _row(shard, name, row[picture], row.get(words.field), words)
                    number += 1
    except pa.ArrowException as error:
        raise BrokenShard(f"{shard.name} is no whole Parquet file: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise BrokenShard(f"cannot read {shard.path}: {str(error).splitlines()[0]}") from error


def _columns(shard: Shard, names: list[str], words: Words) -> tuple[str, str | None]:
    picture = next((name for name in PICTURES if name in names), None)
    if picture is None:
        raise UnknownName("column", PICTURES[0], names, f"{shard.name} needs the pictures' bytes in a column of it")
    if words.prompt is None and words.field not in names:
        raise UnknownName("column", words.field, names, f"{shard.name} has no such words; name its column of them")
    return picture, next((name for name in KEYS if name in names), None)


def _row(shard: Shard, key: str, picture: Any, caption: Any, words: Words) -> Sample:
    """picture: bytes, or a record with `bytes`, as the `datasets` package writes it."""
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(content, bytes) or not content:
        return Sample(key, fault=f"{shard.name} has no bytes of a picture in row '{key}'")
    text = " ".join(caption.split()) if isinstance(caption, str) else ""
    lacking = words.prompt is None and not text
    return Sample(key, content, text, f"{shard.name} has no `{words.field}` in row '{key}'" if lacking else "")
