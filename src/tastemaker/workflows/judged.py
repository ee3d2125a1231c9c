"""What people, or simulated raters, said: pairs with their pictures, from a folder of votes or a ratings table."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ..data.files import read_text
from ..data.images import load_image
from ..data.pair_batches import Picture
from ..data.pairs import (
    Pair,
    pairs_of,
    pairs_of_ratings,
    pairs_of_table,
    split_by_prompt,
    weigh_by_prompt,
    without_ties,
)
from ..data.ratings import PICTURE, PROMPT, read_ratings
from ..data.votes import read_votes
from ..errors import TastemakerError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Judged:
    """Pairs, and where their pictures come from.

    pictures: (3, H, W) float32 in [0, 1] by the name that the pairs use. ceiling: the best accuracy that anybody can
    have on given pairs, where it can be computed.
    """

    pairs: tuple[Pair, ...]
    pictures: Callable[[Picture], Tensor]
    ceiling: Callable[[Sequence[Pair]], float] | None = None

    @property
    def digest(self) -> str:
        """sha256 of the pairs, so that a run goes on with the same ones or not at all."""
        words = hashlib.sha256()
        for pair in self.pairs:
            names = (Path(pair.image_a).name, Path(pair.image_b).name)
            words.update(repr((pair.prompt.text, pair.prompt_id, *names, pair.preference)).encode())
        return words.hexdigest()


def read_judged(path: str | Path, scale: str = "", margin: float = 0.0) -> Judged:
    """Votes and rankings, or with `scale` what was rated on it; at most `margin` apart is a tie.

    path: a folder or file of votes (see `data.votes.read_votes`), or a ratings table: a CSV with a row per picture,
    or the folder of a ratings.csv. Raises TastemakerError where nothing can be compared, UnknownName for a scale.
    """
    path = Path(path)
    if is_table(path):
        pairs = pairs_of_table(read_ratings(path), scale or _only_scale(path), margin)
    else:
        votes = read_votes(path)
        pairs = pairs_of_ratings(votes, scale, margin) if scale else pairs_of(votes)
    return Judged(tuple(_at_hand(pairs, path)), load_image)


def is_table(path: Path) -> bool:
    """A ratings table has a row per picture with its prompt, and names no second picture."""
    table = path / "ratings.csv" if path.is_dir() else path
    if table.suffix.lower() != ".csv" or not table.is_file():
        return False
    columns = {c.strip().casefold() for c in next(csv.reader(io.StringIO(read_text(table))), [])}
    asks = {"choice", "annotator", "image_a", "image_b"}
    return bool(columns & set(PICTURE)) and bool(columns & set(PROMPT)) and not columns & asks


def _only_scale(path: Path) -> str:
    """The score of a table that has one beside its deviation; else the user has to say which."""
    scores = [name for name in read_ratings(path).scores if not name.casefold().startswith("std")]
    if len(scores) != 1:
        raise TastemakerError(f"{path} has the scores {', '.join(scores)}; say which with scale=NAME")
    return scores[0]


def _at_hand(pairs: Sequence[Pair], path: Path) -> list[Pair]:
    """Those whose pictures are files; the others are counted."""
    known: dict[Picture, bool] = {}

    def there(name: Picture) -> bool:
        return known.setdefault(name, Path(name).is_file())

    kept = [pair for pair in pairs if there(pair.image_a) and there(pair.image_b)]
    if not kept:
        example = f", such as {pairs[0].image_a}" if pairs else ""
        raise TastemakerError(f"{path} has {len(pairs)} pairs, none with both pictures at hand{example}")
    if len(kept) < len(pairs):
        print(f"left out: {len(pairs) - len(kept)} of {len(pairs)} pairs whose pictures are not at hand")
    return kept


def parts_of(
    judged: Judged, validation: float, test: float, seed: int, drop_ties: bool, equal_prompts: bool
) -> dict[str, list[Pair]]:
    """`train`, `validation` and `test` by prompt. Weights average 1 over a part; those of a prompt are equal, and
    with `equal_prompts` sum to the same for every prompt. Ties stay in the test part whatever is done with them.

    Raises TastemakerError where a part that is asked for would be empty.
    """
    shares = dict(zip(PARTS, (1 - validation - test, validation, test)))
    parts = split_by_prompt(judged.pairs, shares, seed)
    for name in ("train", "validation"):
        kept = without_ties(parts[name]) if drop_ties else parts[name]
        parts[name] = mean_one(weigh_by_prompt(kept)) if equal_prompts else kept
    empty = [name for name, share in shares.items() if share > 0 and not parts[name]]
    if empty:
        prompts = len({pair.prompt.text for pair in judged.pairs})
        raise TastemakerError(
            f"the {len(judged.pairs)} pairs on {prompts} prompts leave nothing for {', '.join(empty)}; give more "
            "prompts, or another seed, validation_share or test_share"
        )
    return parts


def mean_one(pairs: Sequence[Pair]) -> list[Pair]:
    """The weights scaled to a mean of 1, so that the size of a step does not depend on them."""
    mean = sum(pair.weight for pair in pairs) / max(1, len(pairs))
    return [replace(pair, weight=pair.weight / mean) for pair in pairs]
