"""A user's own pictures with captions, as a map-style data set. `datasets.py` makes one from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import TastemakerError
from ..records import Prompt
from .images import crop_square, decode_image, read_bytes, resize
from .prompts import is_held_out


@dataclass(frozen=True)
class Source:
    """Where a picture's bytes lie: a whole file, or `size` bytes at `offset` of a tar."""

    path: Path
    offset: int = 0
    size: int | None = None
    name: str = ""  # the member's name, for messages

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else str(self.path)

    def read(self) -> bytes:
        if self.size is None:
            return read_bytes(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise TastemakerError(f"cannot read {self}: {error.strerror or error}") from error
        if len(content) < self.size:
            raise TastemakerError(f"cannot read {self}: {self.path} is truncated")
        return content


@dataclass(frozen=True)
class Row:
    """One picture and its words; `fault` says what is wrong with the words where something is."""

    source: Source
    caption: str
    label: str | None = None
    fault: str = ""


@dataclass(frozen=True)
class Captioned:
    """`data[i]` is (picture (3, S, S) float32 in [0, 1], Prompt); the same i always gives the same pair.

    square: `crop_square` or `pad_square` of images.py. classes: the names behind `Prompt.label`, sorted; they stay
    the same on both sides of `held_out`. strays: what was found that is no row (a caption without its picture).
    A row that cannot be read raises TastemakerError naming its file; `problems` lists them all beforehand.
    """

    rows: tuple[Row, ...]
    size: int
    square: Callable[[Tensor], Tensor] = crop_square
    classes: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        row = self.rows[index]
        if row.fault:
            raise TastemakerError(row.fault)
        image = decode_image(row.source.read(), str(row.source))
        return resize(self.square(image), self.size, self.size), self.prompt(index)

    def prompt(self, index: int) -> Prompt:
        """The words alone, without reading the picture."""
        row = self.rows[index]
        return Prompt(row.caption, label=None if row.label is None else self.classes.index(row.label))

    def problems(self) -> list[str]:
        """A sentence for every row that cannot be read, and for every stray. Reads every picture once."""
        return [*self.strays, *(fault for fault in map(self._fault, range(len(self))) if fault)]

    def readable(self) -> Captioned:
        """Only the rows that can be read: what to train on once `problems` has been shown. Reads every picture."""
        return self._take([row for i, row in enumerate(self.rows) if not self._fault(i)])

    def _fault(self, index: int) -> str:
        try:
            self[index]
        except TastemakerError as error:
            return str(error)
        return ""

    def held_out(self, share: float, seed: int = 0, by: str = "label") -> tuple[Captioned, Captioned]:
        """(kept, held out): about `share` of the labels (or captions) are held out, with every picture of theirs.

        by: "label" or "caption". No label (caption) is on both sides, and one stays on its side when pictures are
        added. Raises TastemakerError where rows have no label, or one side would be empty.
        """
        if not 0 < share < 1:
            raise TastemakerError(f"expected a share between 0 and 1, got {share}")
        out = [is_held_out(key, share, seed) for key in self._keys(by)]
        if all(out) or not any(out):
            raise TastemakerError(
                f"holding out {share:g} of {len(set(self._keys(by)))} {by}s with seed {seed} leaves one side empty; "
                "take another share or seed"
            )
        kept = self._take([row for row, is_out in zip(self.rows, out) if not is_out])
        return kept, self._take([row for row, is_out in zip(self.rows, out) if is_out])

    def _keys(self, by: str) -> list[str]:
        if by not in ("label", "caption"):
            raise TastemakerError(f"expected by='label' or by='caption', got {by!r}")
        if by == "caption":
            return [row.caption for row in self.rows]
        missing = next((row for row in self.rows if row.label is None), None)
        if missing is not None:
            raise TastemakerError(f"{missing.source} has no label; hold out by caption, or name the label's column")
        return [str(row.label) for row in self.rows]

    def _take(self, rows: Sequence[Row]) -> Captioned:
        return Captioned(tuple(rows), self.size, self.square, self.classes)


def captioned(
    rows: Sequence[Row], size: int, square: Callable[[Tensor], Tensor], where: str, strays: Sequence[str] = ()
) -> Captioned:
    """A data set of at least one row. Raises TastemakerError naming `where` it was looked for."""
    if not rows:
        raise TastemakerError("; ".join([f"{where} holds no captioned pictures", *strays[:3]]))
    classes = sorted({row.label for row in rows if row.label is not None})
    return Captioned(tuple(rows), size, square, tuple(classes), tuple(strays))
