"""Parts of an answer that are kept while it is made, so that nothing is lost when a browser or a server goes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from ..errors import expect
from .answers import Answer, as_shown, in_item_order, prompt_part, rating_part
from .database import Event
from .presets import Settings

E = Event.__table__


def canonical_part(settings: Settings, shown: Sequence[int], part: Any) -> Answer:
    """A part as the page sends it, in the order of the item: {"prompt"}, {"picture", "rating"} or {"slots"}, in which
    0 stands for a picture without a slot. Raises TastemakerError for anything else."""
    expect(isinstance(part, Mapping), "a part of an answer", part)
    if settings.preset == "imagereward" and "prompt" in part:
        return {"prompt": prompt_part(part["prompt"])}
    if settings.preset == "imagereward" and "rating" in part:
        place = part.get("picture")
        expect(type(place) is int and 0 <= place < len(shown), f"a picture from 0 to {len(shown) - 1}", place)
        return {"picture": shown[place], "rating": rating_part(part["rating"])}
    slots = part.get("slots")
    fits = isinstance(slots, list) and all(type(s) is int and 0 <= s <= settings.slots for s in slots)
    expect(settings.preset != "pairs" and fits and len(slots) == len(shown), "a known part of an answer", dict(part))
    return {"slots": in_item_order(shown, slots)}


def draft(db: Connection, assignment: int, shown: Sequence[int]) -> dict[str, Any]:
    """{"draft": what was kept or answered before, as it was shown}, or nothing."""
    kept = (E.c.assignment_id == assignment) & E.c.kind.in_(("part", "answer"))
    rows = db.execute(select(E.c.kind, E.c.answer).where(kept).order_by(E.c.id)).all()
    if not rows:
        return {}
    found: Answer = {"ratings": [None] * len(shown)}
    for row in rows:
        found = dict(row.answer) if row.kind == "answer" else merged(found, row.answer)
    return {"draft": as_shown(shown, found)}


def merged(found: Answer, part: Mapping[str, Any]) -> Answer:
    if "rating" not in part:
        return {**found, **part}
    ratings = list(found["ratings"])
    ratings[part["picture"]] = part["rating"]
    return {**found, "ratings": ratings}
