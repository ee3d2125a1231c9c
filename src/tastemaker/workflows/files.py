"""Files that are whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ..errors import TastemakerError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too big",
}
PARTIAL = ".partial"


@contextmanager
def disk_errors(path: Path, advice: str = "") -> Iterator[None]:
    """A disk that takes no more becomes one sentence, whatever library was writing; other errors pass."""
    try:
        yield
    except Exception as error:
        reason = FULL.get(_os_errno(error))
        if reason is None:
            raise
        raise TastemakerError(f"{reason}: could not write {path}. Free some space and try again. {advice}") from error


def _os_errno(error: BaseException | None) -> int:
    """The errno at the root; torch.save turns an OSError of its file into a RuntimeError that still carries it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return 0


def write_whole(path: Path, write: Callable[[BinaryIO], Any], advice: str = "") -> str:
    """Call `write(file)` on a file that takes the place of `path` once it is complete. Returns its sha256.

    Raises TastemakerError on a full disk. Nothing half-written stays behind, and a `path` of before stays as it was.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with disk_errors(path, advice), open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256_of(partial)
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def write_text(path: Path, text: str, advice: str = "") -> str:
    return write_whole(path, lambda file: file.write(text.encode()), advice)


def write_json(path: Path, value: Any) -> str:
    """A value that is not finite is written as null: JSON has no word for it."""
    return write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same mapping or list, with None for every number that is not finite."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_yaml(path: Path, value: Any) -> str:
    return write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """The renaming itself reaches the disk only with its folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
