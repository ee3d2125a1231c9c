"""The real pictures that a generator is compared with: one's own, with captions, classes or neither, or the embedded
world's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..algorithms.discriminator import Config
from ..data.batches import Dataset
from ..data.captioned import Captioned, Row, Source, captioned
from ..data.images import crop_square, list_images, stack
from ..data.prompts import read_prompts
from ..errors import TastemakerError
from ..picture_bytes import as_bytes, from_bytes
from ..randomness import stream
from ..records import Prompt
from ..world.dataset import clean_world, noisy_world
from .train import readable
from .tuning import picture_side, speaks_of_the_world

WORLDS = {"noisy": noisy_world, "clean": clean_world}


def real_pictures(data: str | Path | None, generator: Any, config: Config) -> Dataset:
    """One's own that can be read, or the embedded world's for a generator that speaks its words.

    A folder without any .txt is taken as pictures without captions; the name of a subfolder is the class.
    Raises TastemakerError where there are none, or neither captions nor classes nor `prompts` to draw by.
    """
    side = picture_side(generator)
    if data is None:
        if not speaks_of_the_world(generator):
            raise TastemakerError(f"'{config.model}' does not draw the embedded world: give real pictures, --data")
        return replace(WORLDS[config.world](config.seed + 1, side), length=config.pictures)
    path = Path(data)
    plain = path.is_dir() and not any(path.rglob("*.txt"))
    found = without_captions(path, side).readable() if plain else readable(path, side)
    if not len(found):
        raise TastemakerError(f"{path} holds no picture that can be read")
    if plain and not found.classes and not config.prompts:
        raise TastemakerError(
            f"{path} holds pictures without captions (.txt beside them) and without classes (subfolders): give "
            "prompts=FILE to draw the generated pictures by"
        )
    return found


def without_captions(folder: Path, side: int) -> Captioned:
    """Pictures below a folder; a subfolder's name is the label."""
    rows = [Row(Source(path), "", label_of(path, folder)) for path in list_images(folder)]
    return captioned(rows, side, crop_square, str(folder))


def label_of(path: Path, folder: Path) -> str | None:
    return None if path.parent == folder else path.parent.relative_to(folder).as_posix()


@dataclass(frozen=True)
class Chosen:
    """The real pictures of a training and the prompts of their generated counterparts, row by row.

    A picture is seen as it would be saved: clamped and rounded to 8 bits.
    """

    dataset: Dataset
    rows: tuple[int, ...]  # positions in the data set
    own_prompts: tuple[Prompt, ...] = ()  # one a row; empty: the real pictures' own

    def __len__(self) -> int:
        return len(self.rows)

    def prompts(self, places: Sequence[int]) -> list[Prompt]:
        if self.own_prompts:
            return [self.own_prompts[k] for k in places]
        read = getattr(self.dataset, "prompt", None)
        return [read(self.rows[k]) if read else self.dataset[self.rows[k]][1] for k in places]

    def images(self, places: Sequence[int]) -> Tensor:
        """(B, 3, S, S) in [0, 1], multiples of 1/255."""
        return from_bytes(as_bytes(stack([self.dataset[self.rows[k]][0] for k in places])))


def choose(dataset: Dataset, config: Config) -> Chosen:
    """`config.pictures` of the data set, or all, in an order of the seed."""
    draw = stream(config.seed, purpose="real pictures")
    rows = draw.permutation(len(dataset))[: config.pictures]
    asked = read_prompts(config.prompts) if config.prompts else []
    own = tuple(asked[k] for k in draw.integers(len(asked), size=len(rows))) if asked else ()
    return Chosen(dataset, tuple(int(k) for k in rows), own)
