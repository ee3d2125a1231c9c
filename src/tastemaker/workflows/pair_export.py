"""Pairs for `train dpo --data FILE.jsonl` from what a search has drawn: the best and the worst finished candidate of
each prompt and seed, by the verifier's score. One whose candidates all score alike gives none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..algorithms.dpo_rounds import extremes
from ..data.chosen import write_chosen
from ..data.images import save_image
from ..data.pairs import Pair
from ..errors import TastemakerError
from ..picture_bytes import from_bytes
from ..records import Prompt


@dataclass
class PairFile:
    """FILE.jsonl, and its pictures in FILE-pictures/ beside it. Raises TastemakerError for another ending."""

    path: Path
    pairs: list[Pair] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.suffix != ".jsonl":
            raise TastemakerError(f"expected --export-pairs FILE.jsonl, got '{self.path}'")

    def add(self, prompt: Prompt, pictures: Tensor, scores: Tensor) -> None:
        """pictures (N, 3, H, W) uint8, scores (N,), NaN where a candidate was not finished or not scored."""
        for _, best, worst in extremes(scores[None], 0.0).tolist():
            folder = self.path.parent / f"{self.path.stem}-pictures"
            names = [folder / f"{len(self.pairs):06d}-{side}.png" for side in ("chosen", "rejected")]
            for name, place in zip(names, (best, worst)):
                save_image(from_bytes(pictures[place]), name)
            self.pairs.append(Pair(prompt, "", names[0], names[1], 1.0))

    def close(self) -> int:
        """Write the file; how many pairs it holds. Raises TastemakerError where there are none."""
        if not self.pairs:
            raise TastemakerError(
                "no prompt has two finished candidates that score differently, so there is no pair to export; search "
                "with more candidates, or by one that finishes several (best-of-n, prm, halving with more kept)"
            )
        write_chosen(self.pairs, self.path)
        return len(self.pairs)
