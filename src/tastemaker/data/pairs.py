"""Pairs of pictures of one prompt with a preference, from votes, rankings, ratings and tables of scores. No torch.

A preference is the target of the pairwise loss: 1 where a is better, 0 where b is, 0.5 for a tie.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from ..errors import TastemakerError
from ..records import Prompt, Ranking, Rating, Vote
from .ratings import RatingsTable
from .split import key_of, split_rows
from .votes import Votes

PREFERENCE = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}  # a skip is no answer


def compared(answer: Vote | Ranking) -> Iterator[tuple[str, str, float]]:
    """(a, b, preference) of a vote, or of every two pictures of a ranking; a skip gives nothing."""
    if isinstance(answer, Vote):
        if answer.choice in PREFERENCE:
            yield answer.image_a, answer.image_b, PREFERENCE[answer.choice]
        return
    for (a, at_a), (b, at_b) in combinations(zip(answer.images, answer.slots), 2):
        yield a, b, preferred(-at_a, -at_b)  # slot 1 is the best


def preferred(a: float, b: float, margin: float = 0.0) -> float:
    """1.0 where score a is above score b by more than the margin, 0.0 where it is below by as much, else 0.5."""
    return 0.5 if abs(a - b) <= margin else float(a > b)


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt. preference: 1.0 where a is better, 0.0 where b is, 0.5 for a tie.

    image_a, image_b: files, or names where the picture is not at hand. weight: of the pair in a loss, at least 0.
    """

    prompt: Prompt
    prompt_id: str
    image_a: Path | str
    image_b: Path | str
    preference: float
    weight: float = 1.0


def prompt_key(pair: Pair) -> str:
    """Equal where two pairs share a prompt, as every split by prompt has it."""
    return key_of(pair.prompt.text, pair.prompt_id)


def pairs_of(votes: Votes) -> list[Pair]:
    """One pair for each vote and every two pictures of each ranking, ties with preference 0.5, in the order given.

    "Both bad" counts as a tie, a skip gives nothing. Ratings are not read here: see `pairs_of_ratings`.
    """
    answers: list[Vote | Ranking] = [*votes.votes, *votes.rankings]
    return [
        Pair(votes.prompt(answer), answer.prompt_id, votes.picture(a), votes.picture(b), preference)
        for answer in answers
        for a, b, preference in compared(answer)
    ]


def pairs_of_ratings(votes: Votes, scale: str = "overall", margin: float = 0.0) -> list[Pair]:
    """Every two pictures of one prompt that one annotator rated on `scale`; at most `margin` apart is a tie.

    Where an annotator rated a picture twice the later mark counts. Raises TastemakerError where nobody used the
    scale.
    """
    marks: dict[tuple[str, str], dict[str, Rating]] = defaultdict(dict)
    for rating in votes.ratings:
        if rating.scale == scale:
            marks[rating.annotator, rating.prompt_id][rating.image] = rating
    if not marks:
        known = ", ".join(sorted({r.scale for r in votes.ratings})) or "no ratings at all"
        raise TastemakerError(f"nobody rated on the scale '{scale}'; there are: {known}")
    return [
        Pair(votes.prompt(a), prompt_id, votes.picture(a.image), votes.picture(b.image), p)
        for (_, prompt_id), rated in marks.items()
        for a, b in combinations(rated.values(), 2)
        for p in [preferred(a.value, b.value, margin)]
    ]


def pairs_of_table(table: RatingsTable, score: str, margin: float = 0.0) -> list[Pair]:
    """Every two pictures of one prompt of a ratings table, by one of its scores; at most `margin` apart is a tie.

    A picture without that score is left out. Raises UnknownName for a score that the table does not have.
    """
    values = table.score(score)
    pictures = range(len(table))
    return [
        Pair(Prompt(table.prompts[i]), table.prompt_ids[i], table.images[i], table.images[j], p)
        for i, j in same_prompt(table.prompt_ids, [i for i in pictures if values[i] == values[i]])
        for p in [preferred(values[i], values[j], margin)]
    ]


def same_prompt(prompt_ids: Sequence[str], rows: Iterable[int] | None = None) -> Iterator[tuple[int, int]]:
    """Every two rows (i before j) of one prompt, prompts in the order of first mention."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row in range(len(prompt_ids)) if rows is None else rows:
        groups[prompt_ids[row]].append(row)
    for group in groups.values():
        yield from combinations(group, 2)


def without_ties(pairs: Iterable[Pair]) -> list[Pair]:
    """Those in which one picture is better, as ImageReward was trained."""
    return [pair for pair in pairs if pair.preference != 0.5]


def weigh_by_prompt(pairs: Iterable[Pair]) -> list[Pair]:
    """The weights of each prompt sum to 1, so that a prompt of nine pictures does not count nine times one of four.

    A full ranking of k pictures has C(k, 2) pairs of weight 1 / C(k, 2) each. Call it after ties are left out.
    Prompts are told apart as `split_by_prompt` does.
    """
    listed = list(pairs)
    counts = Counter(prompt_key(pair) for pair in listed)
    return [replace(pair, weight=1 / counts[prompt_key(pair)]) for pair in listed]


def split_by_prompt(pairs: Iterable[Pair], shares: Mapping[str, float], seed: int = 0) -> dict[str, list[Pair]]:
    """Parts by prompt, never by pair: pairs of prompts of the same words lie in one part, and stay in it when others
    are added. The parts have the given shares of the prompts in expectation.

    Raises TastemakerError for shares that are negative or do not sum to 1.
    """
    return split_rows(pairs, prompt_key, shares, seed)
