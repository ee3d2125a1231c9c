"""Groups for `train self-correction --data FILE.jsonl` from what `search reflect` has drawn: a picture that the
verifier found at fault, the redrawn one that took its place and passed, and what was said in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..data.corrections import Correction, write_corrections
from ..data.images import save_image
from ..errors import TastemakerError
from ..picture_bytes import from_bytes
from ..records import Prompt
from ..search.selected import Redrawn


@dataclass
class CorrectionFile:
    """FILE.jsonl, and its pictures in FILE-pictures/ beside it. accept: the score from which on a picture passes.
    Raises TastemakerError for another ending."""

    path: Path
    accept: float
    corrections: list[Correction] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.suffix != ".jsonl":
            raise TastemakerError(f"expected --export-groups FILE.jsonl, got '{self.path}'")

    def add(self, prompt: Prompt, pictures: Tensor, scores: Tensor, redrawn: tuple[Redrawn, ...]) -> None:
        """pictures (N, 3, H, W) uint8 and scores (N,) of a prompt's candidates. Of several rounds the last that was
        kept counts, against the picture that was reflected on first."""
        if not redrawn or not scores[redrawn[-1].after] >= self.accept:
            return
        first, last = redrawn[0], redrawn[-1]
        folder = self.path.parent / f"{self.path.stem}-pictures"
        names = [folder / f"{len(self.corrections):06d}-{side}.png" for side in ("bad", "good")]
        for name, place in zip(names, (first.before, last.after)):
            save_image(from_bytes(pictures[place]), name)
        only = first.regions if len(redrawn) == 1 else None  # of several rounds: where the pictures differ
        regions = None if only is None else tuple(map(tuple, only.int().tolist()))
        self.corrections.append(Correction(prompt, names[0], names[1], first.critique, regions))

    def close(self) -> int:
        """Write the file; how many groups it holds. Raises TastemakerError where there are none."""
        if not self.corrections:
            raise TastemakerError(
                f"no redrawn picture reached a score of {self.accept}, so there is no group to export; search with "
                "more prompts or rounds, or a lower accept"
            )
        write_corrections(self.corrections, self.path)
        return len(self.corrections)
