"""What comes from the page, checked and brought into the order of the item. Pure functions on plain values.

An answer as stored, by preset:

    pairs        {"choice": "a" | "b" | "tie" | "both_bad"}; a is the item's first picture, wherever it was shown
    ranking      {"slots": [slot of each picture, 1 best]}
    imagereward  {"prompt": {"category", "problems", "unclear"}, "ratings": [{"overall", "alignment", "fidelity",
                 "problems"} of each picture], "slots": [...]}
    any          {"choice": "skip", "reason"}; and {"harmful": true} beside any of them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import TastemakerError, expect
from .presets import CATEGORIES, MARKS, PICTURE_PROBLEMS, PROMPT_PROBLEMS, SCALES, SKIP_REASONS, Settings

Answer = dict[str, Any]


def canonical(settings: Settings, shown: Sequence[int], answer: Any) -> Answer:
    """The answer to what was shown (place k held picture shown[k]), in the order of the item.

    Raises TastemakerError that names what is missing or wrong.
    """
    expect(isinstance(answer, Mapping), "an answer with named parts", type(answer).__name__)
    harmful = {"harmful": True} if answer.get("harmful") else {}
    if answer.get("choice") == "skip":
        return {"choice": "skip", "reason": one_of(SKIP_REASONS, answer.get("reason"), "reason to skip"), **harmful}
    return {**READERS[settings.preset](settings, shown, answer), **harmful}


def _pair(settings: Settings, shown: Sequence[int], answer: Mapping[str, Any]) -> Answer:
    choice = answer.get("choice")
    if choice in ("tie", "both_bad"):
        return {"choice": choice}
    expect(choice in ("a", "b"), "a choice of a, b, tie, both_bad or skip", choice)
    return {"choice": "ab"[shown["ab".index(str(choice))]]}


def _ranking(settings: Settings, shown: Sequence[int], answer: Mapping[str, Any]) -> Answer:
    return {"slots": in_item_order(shown, slots_of(settings, len(shown), answer.get("slots")))}


def _stages(settings: Settings, shown: Sequence[int], answer: Mapping[str, Any]) -> Answer:
    ratings = answer.get("ratings")
    expect(isinstance(ratings, list) and len(ratings) == len(shown), f"{len(shown)} ratings", ratings)
    return {
        "prompt": prompt_part(answer.get("prompt")),
        "ratings": in_item_order(shown, [rating_part(r) for r in ratings]),  # type: ignore[union-attr]
        **_ranking(settings, shown, answer),
    }


READERS = {"pairs": _pair, "ranking": _ranking, "imagereward": _stages}


def slots_of(settings: Settings, count: int, slots: Any) -> list[int]:
    """Raises TastemakerError unless every picture stands in a slot and no slot holds too many."""
    whole = isinstance(slots, list) and all(type(s) is int and 1 <= s <= settings.slots for s in slots)
    expect(whole and len(slots) == count, f"a slot from 1 to {settings.slots} for each of {count} pictures", slots)
    full = [s for s in set(slots) if slots.count(s) > settings.per_slot]
    expect(not full, f"at most {settings.per_slot} pictures in a slot", f"more in slot {full}")
    return slots


def prompt_part(part: Any) -> Answer:
    """The first stage."""
    expect(isinstance(part, Mapping), "the prompt's category and problems", part)
    return {
        "category": one_of(CATEGORIES, part.get("category"), "category"),
        "problems": some_of(PROMPT_PROBLEMS, part.get("problems")),
        "unclear": bool(part.get("unclear")),
    }


def rating_part(part: Any) -> Answer:
    """The second stage, one picture."""
    expect(isinstance(part, Mapping), "marks and problems of a picture", part)
    marks = {name: part.get(name) for name, *_ in SCALES}
    for name, mark in marks.items():
        expect(type(mark) is int and mark in MARKS, f"`{name}` from {MARKS[0]} to {MARKS[-1]}", mark)
    return {**marks, "problems": some_of(PICTURE_PROBLEMS, part.get("problems"))}


def one_of(known: Sequence[tuple[str, str]], name: Any, what: str) -> str:
    expect(name in dict(known), f"a {what} of {', '.join(dict(known))}", name)
    return name


def some_of(known: Sequence[tuple[str, str]], names: Any) -> list[str]:
    fits = isinstance(names, list) and all(isinstance(n, str) and n in dict(known) for n in names)
    expect(fits, f"a list of problems among {', '.join(dict(known))}", names)
    return [name for name, _ in known if name in names]


def in_item_order(shown: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """values[k] belongs to what stood at place k, which is the item's picture shown[k]."""
    ordered = [None] * len(shown)
    for picture, value in zip(shown, values, strict=True):
        ordered[picture] = value
    return ordered


def as_shown(shown: Sequence[int], answer: Mapping[str, Any]) -> Answer:
    """The other way round: a stored answer as the page showed it, for undo and review."""
    seen = dict(answer)
    if answer.get("choice") in ("a", "b"):
        seen["choice"] = "ab"[list(shown).index("ab".index(answer["choice"]))]
    for part in ("slots", "ratings"):
        if part in answer:
            seen[part] = [answer[part][picture] for picture in shown]
    return seen


def violations(answer: Mapping[str, Any]) -> list[list[int]]:
    """Pairs [i, j] of pictures where i has the better overall mark and yet stands in a worse slot than j."""
    if "ratings" not in answer:
        return []
    marks, slots = [r["overall"] for r in answer["ratings"]], answer["slots"]
    every = range(len(slots))
    return [[i, j] for i in every for j in every if marks[i] > marks[j] and slots[i] > slots[j]]


def agrees(gold: Mapping[str, Any], answer: Mapping[str, Any], least: float = 0.8) -> bool:
    """Whether an answer to a test item is right: the choice is among those of `gold`, or at least `least` of the
    pairs of pictures that `gold` puts in order stand in that order."""
    if "choice" in gold:
        right = gold["choice"]
        return answer.get("choice") in ([right] if isinstance(right, str) else right)
    if "slots" not in answer:
        return False
    wanted, given = gold["slots"], answer["slots"]
    pairs = [(i, j) for i in range(len(wanted)) for j in range(len(wanted)) if wanted[i] < wanted[j]]
    return sum(given[i] < given[j] for i, j in pairs) >= least * len(pairs)


def checked_gold(settings: Settings, count: int, gold: Any) -> Answer:
    """Raises TastemakerError unless `gold` can be the right answer of a test item with `count` pictures."""
    expect(isinstance(gold, Mapping), "a gold answer with `choice` or `slots`", gold)
    if settings.preset == "pairs":
        choices = gold.get("choice")
        several = [choices] if isinstance(choices, str) else choices
        fits = isinstance(several, list) and several and set(several) <= {"a", "b", "tie", "both_bad"}
        expect(bool(fits), "a gold `choice` of a, b, tie or both_bad, or a list of these", choices)
        return {"choice": choices}
    slots = slots_of(settings, count, gold.get("slots"))
    if len(set(slots)) < 2:
        raise TastemakerError(f"expected gold `slots` that put pictures in an order, got {slots}")
    return {"slots": slots}
