"""Files that are whole or not there: written under another name, then moved into place."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def read_text(path: str | Path) -> str:
    """A UTF-8 text file (a byte-order mark is dropped). Raises TastemakerError where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TastemakerError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise TastemakerError(f"cannot read {path}: {error.strerror or error}") from error
