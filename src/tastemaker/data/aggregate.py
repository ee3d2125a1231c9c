"""One answer per prompt or pair out of many people's, for formats that hold only one. No torch.

A single answer stays as it is. Several are counted exactly, in fractions, so that equal shares are ties.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from ..records import Ranking, Vote
from .pairs import PREFERENCE, compared
from .votes import Votes

CHOICE = {1.0: "a", 0.0: "b", 0.5: "tie"}


def one_ranking_per_prompt(votes: Votes) -> list[Ranking]:
    """Prompts in the order of first mention. Where a prompt has one ranking and no votes: that ranking.

    Else the pictures are ordered by the share of their comparisons that they won, a tie as half a win (Copeland's
    score over what was compared); equal shares share a slot, and slots have no gaps. Answers say how many there were
    under `about`.
    """
    groups: dict[str, list[Vote | Ranking]] = defaultdict(list)
    answers: list[Vote | Ranking] = [*votes.rankings, *votes.votes]
    for answer in answers:
        if isinstance(answer, Ranking) or answer.choice in PREFERENCE:
            groups[answer.prompt_id].append(answer)
    return [_one_ranking(group) for group in groups.values()]


def _one_ranking(answers: list[Vote | Ranking]) -> Ranking:
    first = answers[0]
    if len(answers) == 1 and isinstance(first, Ranking):
        return first
    won, met = Counter[str](), Counter[str]()
    for a, b, preference in (c for answer in answers for c in compared(answer)):
        for image, part in ((a, preference), (b, 1 - preference)):
            won[image] += int(2 * part)  # in halves
            met[image] += 2
    share = {image: Fraction(won[image], met[image]) for image in met}
    slot = {value: i for i, value in enumerate(sorted(set(share.values()), reverse=True), 1)}
    slots = tuple(slot[value] for value in share.values())
    return Ranking(first.prompt_id, first.prompt, tuple(share), slots, about={"answers": len(answers)})


def one_vote_per_pair(votes: Votes) -> list[Vote]:
    """What most said about each pair of each prompt, in the order of first mention; a tie where neither has more.

    Where a pair has a single vote: that vote. Else `about` holds the counts `for_a`, `for_b` and `ties`.
    """
    found: dict[tuple[str, frozenset[str]], list[Vote]] = defaultdict(list)
    answers: list[Vote | Ranking] = [*votes.votes, *votes.rankings]
    for answer in answers:
        for a, b, preference in compared(answer):
            choice = CHOICE[preference]
            made = Vote(answer.prompt_id, answer.prompt, a, b, choice, answer.annotator)
            vote = answer if isinstance(answer, Vote) else made
            found[answer.prompt_id, frozenset((a, b))].append(vote)
    return [listed[0] if len(listed) == 1 else _majority(listed) for listed in found.values()]


def _majority(listed: list[Vote]) -> Vote:
    first, counts = listed[0], Counter[str]()
    for vote in listed:
        preference = PREFERENCE[vote.choice]
        counts[CHOICE[preference if vote.image_a == first.image_a else 1 - preference]] += 1
    choice = "tie" if counts["a"] == counts["b"] else "a" if counts["a"] > counts["b"] else "b"
    about = {"answers": len(listed), "for_a": counts["a"], "for_b": counts["b"], "ties": counts["tie"]}
    return replace(first, choice=choice, annotator="", about=about)


def mean_ratings(votes: Votes) -> Mapping[tuple[str, str], Mapping[str, float]]:
    """(prompt id, picture) -> scale -> mean over all marks."""
    marks: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rating in votes.ratings:
        marks[rating.prompt_id, rating.image][rating.scale].append(rating.value)
    return {key: {s: sum(v) / len(v) for s, v in scales.items()} for key, scales in marks.items()}
