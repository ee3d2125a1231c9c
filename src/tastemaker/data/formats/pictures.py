"""The pictures that a file of votes names or holds: known by the sha256 of their content, copied on export."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from ...errors import TastemakerError
from ...records import Ranking, Vote
from ..files import whole_file
from ..votes import Votes

MAGIC = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"GIF8", ".gif"))


class Shelf:
    """Names and bytes in, content hashes out. Used as a context: pictures held as bytes are put down, under
    `NAME-pictures` beside the file, only when the block ends well."""

    def __init__(self, path: Path):
        self.path, self.folder = path, path.parent
        self.found: dict[str, Path] = {}  # sha256 -> path relative to the folder
        self._names: dict[str, str] = {}
        self._held: Path | None = None

    def name(self, file: str) -> str:
        """The hash of a file in the folder; any other name as it is. A path that leaves the folder is not opened."""
        if file not in self._names:
            self._names[file] = self._look(file)
        return self._names[file]

    def _look(self, file: str) -> str:
        if not is_inside(file) or not (self.folder / file).is_file():
            return file
        digest = hash_file(self.folder / file)
        self.found.setdefault(digest, Path(file))
        return digest

    def names(self, files: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Hashes, and what `about` must keep so that the same file names are written again: nothing, unless one
        content has several names."""
        names = tuple(self.name(file) for file in files)
        again = [str(self.found.get(n, n)) for n in names]
        return names, {} if again == list(files) else {"files": list(files)}

    def known(self, digest: str, path: str) -> None:
        """A picture of which the file itself says the hash."""
        self.found[digest] = Path(path)
        self._names[digest] = digest

    def hold(self, content: bytes) -> str | None:
        """The hash of a picture given as bytes; None where they are no picture."""
        suffix = suffix_of(content)
        if suffix is None:
            return None
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self.found:
            self._held = self._held or Path(tempfile.mkdtemp(prefix=f".{self.path.stem}-", dir=self.folder))
            (self._held / f"{digest}{suffix}").write_bytes(content)
            self.found[digest] = Path(f"{self.path.stem}-pictures", digest[:2], f"{digest}{suffix}")
        return digest

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._held is None:
            return
        if kind is None:
            for file in self._held.iterdir():
                place = self.folder / self.found[file.stem]
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
        shutil.rmtree(self._held)


def is_inside(file: str) -> bool:
    """Whether a name is a relative path that does not leave its folder."""
    path = PurePosixPath(file.replace("\\", "/"))
    return bool(file) and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]


def hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TastemakerError(f"cannot read {path}: {error.strerror or error}") from error


def suffix_of(content: bytes) -> str | None:
    """Told by the first bytes."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in MAGIC if content.startswith(magic)), None)


def file_names(votes: Votes, answer: Vote | Ranking) -> list[str]:
    """How a foreign file calls the pictures of an answer: as it was imported, else by their path."""
    images = answer.images if isinstance(answer, Ranking) else (answer.image_a, answer.image_b)
    kept = answer.about.get("files")
    return list(kept) if kept else [file_name(votes, image) for image in images]


def file_name(votes: Votes, image: str) -> str:
    return votes.pictures[image].as_posix() if image in votes.pictures else image


def copy_pictures(votes: Votes, folder: Path) -> None:
    """Every picture under its own path into another folder. Raises TastemakerError where one is missing."""
    if folder.resolve() == votes.folder.resolve():
        return
    for digest, path in votes.pictures.items():
        if not is_inside(path.as_posix()):
            raise TastemakerError(f"picture {digest}: expected a path inside the folder of the votes, got {path}")
        source, place = votes.folder / path, folder / path
        if not source.is_file():
            raise TastemakerError(f"the picture {source} is missing, though the votes say that it is there")
        if not place.is_file() or place.stat().st_size != source.stat().st_size:
            with whole_file(place) as temporary:
                shutil.copyfile(source, temporary)


def picture_bytes(votes: Votes, image: str) -> bytes:
    """Raises TastemakerError where the picture is not at hand."""
    if image not in votes.pictures:
        raise TastemakerError(f"picture {image} is not at hand; this format holds pictures, so each must be a file")
    try:
        return (votes.folder / votes.pictures[image]).read_bytes()
    except OSError as error:
        raise TastemakerError(f"cannot read {votes.folder / votes.pictures[image]}: {error.strerror}") from error


def keep_columns(about: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """`about` with the columns of a file that have no place in an answer."""
    return {**about, "columns": dict(rest)} if rest else dict(about)


def columns_kept(answer: Vote | Ranking) -> Mapping[str, Any]:
    """What `keep_columns` kept: written back on export."""
    return answer.about.get("columns", {})
