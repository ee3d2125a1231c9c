"""One row per annotator: how much, how fast, how even-handed, how consistent, and what to look at. Numpy only."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..records import Interval, Ranking, Rating, Vote
from ..shares import share_of

Answer = Vote | Rating | Ranking
LEAST = 20  # answers before an alarm is raised


@dataclass(frozen=True)
class Limits:
    """When a row raises an alarm; each needs at least 20 answers of its kind."""

    seconds: float = 1.0  # a median below it is too fast to have looked
    run: int = 15  # so many choices of one place in a row: straight-lining (by chance in 1.5 % of 1,000 choices)
    same_marks: float = 0.9  # this share of pictures with the very same marks: straight-lining
    consistency: float = 0.6  # a self-consistency on repeats below it
    gold: float = 0.7  # a share of right test answers below it
    majority: float = 0.5  # agreement with the majority of the others below it


DEFAULT = Limits()


def is_counted(answer: Answer) -> bool:
    return bool(answer.about.get("counted", answer.about.get("kind") not in ("repeat", "gold", "test")))


def pair_key(vote: Vote) -> tuple[str, str, str]:
    first, second = sorted((vote.image_a, vote.image_b))
    return vote.prompt_id, first, second


def chosen_places(vote: Vote) -> Iterator[int]:
    """The place (0 left, 1 right) of the chosen picture; nothing for a tie or where the places are not known."""
    shown = vote.about.get("shown")
    if vote.choice in ("a", "b") and isinstance(shown, Sequence) and sorted(shown) == [0, 1]:
        yield list(shown).index("ab".index(vote.choice))


def answer_times(answers: Iterable[Answer]) -> list[float]:
    """Milliseconds of each act; the marks and the order of one event are one act."""
    times: dict[Any, float] = {}
    for i, answer in enumerate(answers):
        ms = answer.about.get("ms")
        if isinstance(ms, int | float) and ms >= 0:
            times[answer.about.get("event", ("alone", i))] = float(ms)
    return list(times.values())


def consistency(votes: Iterable[Vote]) -> tuple[int, int]:
    """(same, all) answers of one person to a pair seen before, compared with the first: swapped repeats."""
    first: dict[tuple, str] = {}
    same = total = 0
    for vote in votes:
        if vote.choice == "skip":
            continue
        key, better = (vote.annotator, *pair_key(vote)), winner(vote)
        if key in first:
            same, total = same + (first[key] == better), total + 1
        first.setdefault(key, better)
    return same, total


def winner(vote: Vote) -> str:
    """The chosen picture, or the choice where it is none."""
    return {"a": vote.image_a, "b": vote.image_b}.get(vote.choice, vote.choice)


def annotator_rows(
    votes: Sequence[Vote], ratings: Sequence[Rating], rankings: Sequence[Ranking], limits: Limits = DEFAULT
) -> list[dict[str, Any]]:
    """A row per annotator, most answers first, with `alarms` in words."""
    own: dict[str, tuple[list[Vote], list[Rating], list[Ranking]]] = defaultdict(lambda: ([], [], []))
    for vote in votes:
        own[vote.annotator][0].append(vote)
    for rating in ratings:
        own[rating.annotator][1].append(rating)
    for ranking in rankings:
        own[ranking.annotator][2].append(ranking)
    agreed = majority_agreement([v for v in votes if is_counted(v)])
    rows = [_row(name, *answers, agreed.get(name), limits) for name, answers in own.items()]
    return sorted(rows, key=lambda row: -row["answers"])


def _row(
    name: str,
    votes: Sequence[Vote],
    ratings: Sequence[Rating],
    rankings: Sequence[Ranking],
    majority: tuple[int, int] | None,
    limits: Limits,
) -> dict[str, Any]:
    times = answer_times([*votes, *ratings, *rankings])
    places = [place for v in votes for place in chosen_places(v)]
    often = Counter(v.choice for v in votes)
    gold = _gold([*votes, *rankings])
    row: dict[str, Any] = {
        "annotator": name,
        "answers": len(votes) + len(rankings) + (0 if rankings else len({(r.prompt_id, r.image) for r in ratings})),
        "votes": len(votes),
        "ratings": len(ratings),
        "rankings": len(rankings),
        "skips": often["skip"],
        "tie_rate": (often["tie"] + often["both_bad"]) / (len(votes) - often["skip"] or math.nan),
        "seconds": float(np.median(times)) / 1000 if times else math.nan,
        "timed": len(times),
        "left": share_of(places.count(0), len(places)),
        "longest_run": max((len(list(g)) for _, g in groupby(places)), default=0),
        "same_marks": same_marks(ratings),
        "self_consistency": share_of(*consistency(votes)),
        "majority": share_of(*(majority or (0, 0))),
        "gold": share_of(*gold),
    }
    return {**row, "alarms": alarms(row, limits)}


def _gold(answers: Iterable[Vote | Ranking]) -> tuple[int, int]:
    right = [bool(a.about["right"]) for a in answers if "right" in a.about]
    return sum(right), len(right)


def same_marks(ratings: Sequence[Rating]) -> float:
    """The share of pictures that got the marks which this person gives most often; NaN below 20 pictures."""
    marks: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for rating in ratings:
        marks[rating.prompt_id, rating.image][rating.scale] = rating.value
    often = Counter(tuple(sorted(m.items())) for m in marks.values())
    return max(often.values()) / len(marks) if len(marks) >= LEAST else math.nan


def majority_agreement(votes: Iterable[Vote]) -> dict[str, tuple[int, int]]:
    """annotator -> (agreed, all) with the majority of the others, where these are not split; ties are left out."""
    pairs: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for vote in votes:
        if vote.choice in ("a", "b"):
            pairs[pair_key(vote)][vote.annotator] = winner(vote)
    found: dict[str, tuple[int, int]] = {}
    for answers in pairs.values():
        often = Counter(answers.values())
        for name, mine in answers.items():
            others = often.copy()
            others[mine] -= 1
            lead = others.most_common(2)
            if lead[0][1] > (lead[1][1] if len(lead) > 1 else 0):
                agreed, total = found.get(name, (0, 0))
                found[name] = agreed + (lead[0][0] == mine), total + 1
    return found


def alarms(row: Mapping[str, Any], limits: Limits = DEFAULT) -> list[str]:
    """What a reviewer should look at, in words; nothing is judged on fewer than 20 answers of a kind."""
    left, found = row["left"], []
    if row["timed"] >= LEAST and row["seconds"] < limits.seconds:
        found.append(f"fast: half of the answers took less than {row['seconds']:.1f} s")
    if left and left.count >= LEAST and not left.low <= 0.5 <= left.high:
        found.append(f"position: {left.value:.0%} of the choices are for the left picture")
    if row["longest_run"] >= limits.run:
        found.append(f"straight line: {row['longest_run']} choices of one place in a row")
    if row["same_marks"] >= limits.same_marks:  # NaN is not
        found.append(f"straight line: {row['same_marks']:.0%} of the pictures got the very same marks")
    for name, least, words in (
        ("self_consistency", limits.consistency, "of repeated pairs were answered as before"),
        ("gold", limits.gold, "of the test items were answered rightly"),
        ("majority", limits.majority, "of the votes agree with the majority of the others"),
    ):
        value = row[name]
        if value and value.count >= LEAST and value.value < least:
            found.append(f"{name.replace('_', ' ')}: {value.value:.0%} {words}")
    return found


def plain(value: Any) -> Any:
    """For JSON: intervals as objects, NaN as None."""
    if isinstance(value, Interval):
        return plain(value.as_dict())
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
