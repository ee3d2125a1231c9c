"""What people said about pictures: votes on pairs, ratings and rankings, with the pictures by content. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import TastemakerError
from ..records import Prompt, Ranking, Rating, Vote
from .split import key_of, split_rows


@dataclass(frozen=True)
class Votes:
    """A set of answers, as given. Pictures are named by the sha256 of their file, in hexadecimal.

    pictures: sha256 -> path relative to `folder`; a picture that a file names without holding it has no entry here,
    and its name in the answers is then what the file says (a path, an id). prompts: prompt id -> prompt, also those
    that nobody has answered yet. folder: where the pictures lie.
    """

    votes: tuple[Vote, ...] = ()
    ratings: tuple[Rating, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    folder: Path = Path()

    def __len__(self) -> int:
        return len(self.votes) + len(self.ratings) + len(self.rankings)

    def picture(self, name: str) -> Path | str:
        """The file of a picture where there is one, else its name."""
        return self.folder / self.pictures[name] if name in self.pictures else name

    def prompt(self, answer: Vote | Rating | Ranking) -> Prompt:
        """With label and check where the set knows them."""
        known = self.prompts.get(answer.prompt_id)
        return known if known is not None and known.text == answer.prompt else Prompt(answer.prompt)


def prompts_of(votes: Iterable[Vote | Rating | Ranking]) -> dict[str, Prompt]:
    """prompt id -> prompt, in the order of first mention."""
    found: dict[str, Prompt] = {}
    for answer in votes:
        found.setdefault(answer.prompt_id, Prompt(answer.prompt))
    return found


def split(votes: Votes, shares: Mapping[str, float], seed: int = 0) -> dict[str, Votes]:
    """Parts by prompt, never by pair: all answers on prompts of the same words lie in one part, and stay in it when
    others are added. The parts have the given shares of the prompts in expectation.

    Each part knows only the pictures that its own answers name. Raises TastemakerError for shares that are negative
    or do not sum to 1.
    """

    def key(answer: Vote | Rating | Ranking) -> str:
        return key_of(answer.prompt, answer.prompt_id)

    ballots = split_rows(votes.votes, key, shares, seed)
    ratings = split_rows(votes.ratings, key, shares, seed)
    rankings = split_rows(votes.rankings, key, shares, seed)
    prompts = split_rows(votes.prompts.items(), lambda item: key_of(item[1].text, item[0]), shares, seed)
    parts = {
        name: replace(
            votes,
            votes=tuple(ballots[name]),
            ratings=tuple(ratings[name]),
            rankings=tuple(rankings[name]),
            prompts=dict(prompts[name]),
        )
        for name in shares
    }
    return {name: replace(part, pictures=_named(part)) for name, part in parts.items()}


def _named(votes: Votes) -> dict[str, Path]:
    names = {n for v in votes.votes for n in (v.image_a, v.image_b)} | {r.image for r in votes.ratings}
    names |= {n for r in votes.rankings for n in r.images}
    return {name: path for name, path in votes.pictures.items() if name in names}


def read_votes(path: str | Path, format: str | None = None) -> Votes:
    """A file, or a folder that `write_votes` wrote, in one of the formats of `tastemaker.data.formats`.

    format: its name; None: recognised by the suffix and the columns. Raises UnknownName for a format, and
    TastemakerError naming file, row and column for a row that is not valid; nothing of that file is then taken.
    """
    from .formats import read

    return read(Path(path), format)


def write_votes(votes: Votes, folder: str | Path, format: str) -> list[Path]:
    """The answers in a format into a folder, and whatever that format cannot hold in own files beside it; the files
    written. `read_votes(folder)` gives the same answers back.

    Raises UnknownName for a format, TastemakerError where the disk is full or a picture that the format holds as
    bytes is missing.
    """
    from .formats import write

    if not isinstance(votes, Votes):
        raise TastemakerError(f"expected Votes, got {type(votes).__name__}")
    return write(votes, Path(folder), format)
