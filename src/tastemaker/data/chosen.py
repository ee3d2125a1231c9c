"""Files of chosen and rejected pictures, as DPO's releases have them: a JSON line per pair with `prompt`, `chosen`
and `rejected`, the last two paths of pictures, those that are not absolute beside the file. Letters: B batch, C H W.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..records import Prompt
from .files import json_lines, read_text, write_text
from .images import crop_square, load_image, resize
from .pairs import Pair

FIELDS = ("prompt", "chosen", "rejected")


def read_chosen(path: str | Path) -> list[Pair]:
    """The pairs in the order of the file, the chosen picture as `image_a` with preference 1. Other fields of a line
    are passed over. Raises TastemakerError naming the line that lacks a field or names a picture that is not
    there."""
    path, pairs = Path(path), []
    for place, row in json_lines(read_text(path), str(path)):
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in FIELDS):
            raise TastemakerError(f"{place}: expected text in the fields {', '.join(FIELDS)}, got {row!r}")
        chosen, rejected = path.parent / row["chosen"], path.parent / row["rejected"]
        for picture in (chosen, rejected):
            if not picture.is_file():
                raise TastemakerError(f"{place}: there is no picture {picture}")
        pairs.append(Pair(Prompt(row["prompt"]), "", chosen, rejected, 1.0))
    if not pairs:
        raise TastemakerError(f"{path} holds no pairs; expected a JSON line with {', '.join(FIELDS)} for each")
    return pairs


def write_chosen(pairs: Sequence[Pair], path: str | Path) -> None:
    """Each pair with the better picture as chosen, paths as seen from the file. Raises TastemakerError for a tie,
    which this format cannot hold."""
    folder, lines = Path(path).absolute().parent, []
    for pair in pairs:
        if pair.preference == 0.5:
            raise TastemakerError(f"a tie has no chosen picture ('{pair.prompt.text}'); leave ties out first")
        better = pair.preference > 0.5
        pictures = (pair.image_a, pair.image_b) if better else (pair.image_b, pair.image_a)
        chosen, rejected = (os.path.relpath(Path(p).absolute(), folder) for p in pictures)
        lines.append(json.dumps({"prompt": pair.prompt.text, "chosen": chosen, "rejected": rejected}))
    write_text(path, "".join(f"{line}\n" for line in lines))


@dataclass(frozen=True)
class ChosenPictures:
    """A map-style data set: `data[i]` is ((2, 3, S, S) float32 in [0, 1], chosen before rejected, and the prompt).
    Pictures are cut square and resized. Raises TastemakerError naming a file that cannot be read."""

    pairs: tuple[Pair, ...]
    size: int  # S

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        pair = self.pairs[index]
        order = (pair.image_a, pair.image_b) if pair.preference > 0.5 else (pair.image_b, pair.image_a)
        both = [resize(crop_square(load_image(picture)), self.size, self.size) for picture in order]
        return torch.stack(both), pair.prompt
