"""What a set of answers says about itself: counts, ties, agreement, position bias, speed. Numpy only.

Answers are plain records; of `about` these keys are read where they are there: `ms` (time to answer), `shown`
(shown[k]: which picture stood at place k), `kind` (`repeat`: the same pair again, places swapped; `gold`, `test`),
`right` (of a gold answer), `counted`, `event` (answers of one event are one act). Figures that are not defined are
None, so that a summary is JSON.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..correlation import kendall
from ..data.pairs import compared
from ..records import Ranking, Rating, Vote
from ..shares import share_of
from .agreement import (
    cohen,
    fleiss,
    kendall_w,
    krippendorff,
    mean_pairwise,
    percent_agreement,
    table_of,
    value_counts,
)
from .annotators import annotator_rows, answer_times, chosen_places, consistency, is_counted, pair_key, plain

CODES = {"tie": 0.0, "both_bad": 2.0}  # besides 1 and -1: the first or the second of the sorted pair


def summary(votes: Iterable[Vote], ratings: Iterable[Rating], rankings: Iterable[Ranking]) -> dict[str, Any]:
    """Everything below, as plain values for a page or a file; answers that do not count (repeats, tests, late and
    rejected ones) are used for self-consistency, gold and speed alone."""
    votes, ratings, rankings = list(votes), list(ratings), list(rankings)
    counted = [v for v in votes if is_counted(v)]
    marks, orders = [r for r in ratings if is_counted(r)], [r for r in rankings if is_counted(r)]
    found = {
        "counts": counts(counted, marks, orders),
        "choices": choices(counted),
        "pairs": pair_agreement([*counted, *orders]),
        "votes": vote_agreement(counted),
        "ratings": rating_agreement(marks),
        "rankings": ranking_agreement(orders),
        "position": position_bias(votes),
        "self_consistency": share_of(*consistency(votes)),
        "speed": speed([*votes, *ratings, *rankings]),
        "annotators": annotator_rows(votes, ratings, rankings),
    }
    return plain(found)


def counts(votes: Sequence[Vote], ratings: Sequence[Rating], rankings: Sequence[Ranking]) -> dict[str, int]:
    answers: list[Vote | Rating | Ranking] = [*votes, *ratings, *rankings]
    pictures = {i for v in votes for i in (v.image_a, v.image_b)} | {r.image for r in ratings}
    return {
        "votes": len(votes),
        "ratings": len(ratings),
        "rankings": len(rankings),
        "prompts": len({a.prompt_id for a in answers}),
        "pictures": len(pictures | {i for r in rankings for i in r.images}),
        "annotators": len({a.annotator for a in answers}),
    }


def choices(votes: Sequence[Vote]) -> dict[str, Any]:
    """How often each choice was made, and the shares of ties (of answers that are no skip) and of skips."""
    often = Counter(v.choice for v in votes)
    answered = len(votes) - often["skip"]
    return {
        **{f"choice_{name}": often[name] for name in ("a", "b", "tie", "both_bad", "skip")},
        "tie_rate": share_of(often["tie"], answered),
        "both_bad_rate": share_of(often["both_bad"], answered),
        "skip_rate": share_of(often["skip"], len(votes)),
    }


# agreement


def vote_agreement(votes: Sequence[Vote]) -> dict[str, float]:
    """Of the votes on the same pair by several people, in four values: first, second, tie, both bad."""
    table = table_of((v.annotator, pair_key(v), _code(v)) for v in votes if v.choice != "skip").values
    return {**_nominal(table), "cohen": mean_pairwise(_rows(table), cohen)}


def _code(vote: Vote) -> float:
    first = vote.image_a <= vote.image_b
    return CODES.get(vote.choice, 1.0 if (vote.choice == "a") == first else -1.0)


def _nominal(table: NDArray) -> dict[str, float]:
    """Fleiss' kappa only where every pair has as many answers, since it is not defined otherwise."""
    often, _ = value_counts(table)
    several = often[often.sum(1) >= 2]
    even = len(several) > 0 and len(set(several.sum(1))) == 1
    return {
        "items": len(several),
        "percent": percent_agreement(table),
        "fleiss": fleiss(several) if even else math.nan,
        "alpha_nominal": krippendorff(table, "nominal"),
    }


def _rows(table: NDArray) -> dict[str, NDArray]:
    return {str(i): row for i, row in enumerate(table)}


def pair_agreement(answers: Sequence[Vote | Ranking]) -> dict[str, Any]:
    """How often two people who both prefer one picture of a pair prefer the same one, over votes and rankings alike:
    the figure that ImageReward's paper calls agreement (about 65 % for two annotators). Ties are left out."""
    agreed = total = 0
    for prefer in _preferences(answers).values():
        first, second = prefer[1.0], prefer[0.0]
        total += (first + second) * (first + second - 1) // 2
        agreed += (first * (first - 1) + second * (second - 1)) // 2
    return {"agreed": agreed, "of": total, "share": agreed / total if total else math.nan}


def _preferences(answers: Iterable[Vote | Ranking]) -> Mapping[tuple[str, str, str], Counter[float]]:
    """(prompt id, a, b) with a before b -> how many preferred a (1), b (0), neither (0.5); one answer a person."""
    last = {
        (answer.annotator, answer.prompt_id, *sorted((a, b))): preference if a <= b else 1 - preference
        for answer in answers
        for a, b, preference in compared(answer)
    }
    found: dict[tuple[str, str, str], Counter[float]] = defaultdict(Counter)
    for (_, prompt_id, a, b), preference in last.items():
        found[prompt_id, a, b][preference] += 1
    return found


def rating_agreement(ratings: Sequence[Rating]) -> dict[str, dict[str, float]]:
    """scale -> figures over pictures that several people marked."""
    scales = list(dict.fromkeys(r.scale for r in ratings))
    return {scale: _scale([r for r in ratings if r.scale == scale]) for scale in scales}


def _scale(ratings: Sequence[Rating]) -> dict[str, float]:
    table = table_of((r.annotator, (r.prompt_id, r.image), r.value) for r in ratings).values
    return {
        **_nominal(table),
        "alpha_ordinal": krippendorff(table, "ordinal"),
        "alpha_interval": krippendorff(table, "interval"),
        "cohen_quadratic": mean_pairwise(_rows(table), lambda x, y: cohen(x, y, "quadratic")),
        "tau_b": mean_pairwise(_rows(table), kendall),
        "mean": float(np.mean([r.value for r in ratings])),
    }


def ranking_agreement(rankings: Sequence[Ranking]) -> dict[str, float]:
    """Means over prompts whose pictures several people ordered: tau-b of two people, and Kendall's W of all."""
    tau, w = [], []
    for orders in _orders(rankings):
        found = [kendall(x, y) for x, y in combinations(orders, 2)]
        tau.append(_mean(found))
        w.append(kendall_w(orders))
    return {"prompts": len(tau), "tau_b": _mean(tau), "kendall_w": _mean(w)}


def _orders(rankings: Sequence[Ranking]) -> Iterator[NDArray]:
    """(people, pictures) slots of each set of at least 2 pictures that several people ordered."""
    groups: dict[tuple[str, tuple[str, ...]], dict[str, list[int]]] = defaultdict(dict)
    for r in rankings:
        order = sorted(range(len(r.images)), key=r.images.__getitem__)
        key = (r.prompt_id, tuple(r.images[i] for i in order))
        groups[key][r.annotator] = [r.slots[i] for i in order]
    yield from (np.array(list(g.values())) for (_, images), g in groups.items() if len(g) > 1 and len(images) > 1)


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


# position and speed


def position_bias(votes: Sequence[Vote]) -> dict[str, Any]:
    """The share of choices for the left picture, of votes that choose one and say how they were shown. Sides are
    drawn by lot, so half is expected, and an interval without 0.5 is a bias."""
    places = [place for v in votes for place in chosen_places(v)]
    left = share_of(places.count(0), len(places))
    return {"left": left, "biased": left is not None and not left.low <= 0.5 <= left.high}


def speed(answers: Sequence[Vote | Rating | Ranking]) -> dict[str, float]:
    """Seconds for an answer: median, 10th and 90th percentile."""
    times = np.array(answer_times(answers)) / 1000
    low, middle, high = np.percentile(times, [10, 50, 90]) if len(times) else [math.nan] * 3
    return {"answers": len(times), "median": float(middle), "p10": float(low), "p90": float(high)}
