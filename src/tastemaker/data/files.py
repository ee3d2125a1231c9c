"""Files that are whole or not there: written under another name, then moved into place; and what text says."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import TastemakerError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends well, else it is removed.

    Raises TastemakerError where the disk is full or the folder cannot be written to; `path` is then as it was before.
    """
    path = Path(path)
    temporary = _open_beside(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _open_beside(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the suffix stays last: image and table writers read the format off it
        handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent)
    except OSError as error:
        raise _explained(error, path) from error
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(handle, 0o666 & ~mask)  # mkstemp's 0600 would keep colleagues from reading the result
    os.close(handle)
    return Path(name)


def _flush(path: Path) -> None:
    """On to the disk before the move, so that a power cut cannot leave an empty file under the final name."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _explained(error: OSError, path: Path) -> TastemakerError:
    if error.errno in FULL:
        return TastemakerError(f"the disk is full: {path} was not written; free some space and run this again")
    return TastemakerError(f"cannot write {path}: {error.strerror or error}")


def write_text(path: str | Path, text: str) -> None:
    """As UTF-8, line ends as they are, whole or not at all. Raises as `whole_file` does."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def read_text(path: str | Path) -> str:
    """A UTF-8 text file (a byte-order mark is dropped), every line end as \\n. Raises TastemakerError where it cannot
    be read."""
    return read_unchanged(path).replace("\r\n", "\n").replace("\r", "\n")


def read_unchanged(path: str | Path) -> str:
    """As `read_text`, with the line ends as they are: a cell of a CSV may hold some."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TastemakerError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise TastemakerError(f"cannot read {path}: {error.strerror or error}") from error


def parse_json(text: str, where: str) -> Any:
    """Raises TastemakerError naming `where` the text stands."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TastemakerError(f"{where} is not JSON: {error}") from error


def json_lines(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """(place, value) of each line that is not empty; a place names its line, counted from 1. Raises as `parse_json`
    does."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{where} row {number}"
            yield place, parse_json(line, place)
