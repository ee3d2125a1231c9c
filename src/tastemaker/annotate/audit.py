"""Is the database what its log says? Everything that is kept beside the log is derived again from it and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from .database import Assignment, Event, Item, Membership

A, I, E, M = Assignment.__table__, Item.__table__, Event.__table__, Membership.__table__  # noqa: E741
HOLDING = ("leased", "answered")  # states in which an assignment has one of the item's places


def audit(db: Connection | Session) -> list[str]:
    """A sentence for everything that does not fit; an empty list is a database whose log and state agree.

    Checked: each assignment's state follows from its events; no assignment has two answers that count; an item is as
    often taken as assignments hold it; the counters of each person are the events' counts.
    """
    assignments = list(db.execute(select(A)))
    events: dict[int, list[Row]] = {}
    for event in db.execute(select(E).where(E.c.assignment_id.is_not(None)).order_by(E.c.id)):
        events.setdefault(event.assignment_id, []).append(event)
    found = list(_states(assignments, events))
    found += _places(list(db.execute(select(I))), assignments)
    return found + list(_counters(list(db.execute(select(M))), assignments))


def _states(assignments: Sequence[Row], events: dict[int, list[Row]]) -> Iterator[str]:
    for a in assignments:
        state, answers = state_of(events.get(a.id, ()))
        if answers > 1:
            yield f"assignment {a.id} has {answers} answers that count"
        if state != a.state:
            yield f"assignment {a.id} is {a.state}; its log says {state}"


def state_of(events: Sequence[Row]) -> tuple[str, int]:
    """(the state that follows from an assignment's events, answers that are not taken back)."""
    state, standing = "leased", 0
    for event in events:
        if event.kind in ("answer", "relabel"):
            state, standing = (event.about or {}).get("state", "answered"), standing + 1
        elif event.kind == "skip":
            state = "skipped"
        elif event.kind == "undo":
            was_answer, state = state in ("answered", "late"), (event.about or {}).get("state", "leased")
            standing -= was_answer
        elif event.kind == "expire":
            state = "expired"
        elif event.kind in ("lease", "reject"):
            state = {"lease": "leased", "reject": "rejected"}[event.kind]
    return state, standing


def _places(items: Sequence[Row], assignments: Sequence[Row]) -> Iterator[str]:
    # a relabelled answer's place goes on to the reviewer's answer
    held = Counter(a.item_id for a in assignments if a.kind in ("work", "relabel") and a.state in HOLDING)
    for item in items:
        if item.taken != held[item.id]:
            yield f"item {item.id} is taken {item.taken} times; {held[item.id]} assignments hold it"
        if item.open != (item.gold is None and item.taken < item.wanted):
            yield f"item {item.id} is {'open' if item.open else 'closed'} with {item.taken} of {item.wanted} taken"


def _counters(members: Sequence[Row], assignments: Sequence[Row]) -> Iterator[str]:
    done = ("answered", "late", "rejected")
    counts: Counter[tuple[int, int, str]] = Counter()
    for a in assignments:
        if a.kind not in ("test", "relabel") and a.state in done:
            counts[a.project_id, a.annotator_id, "done"] += 1
        counts[a.project_id, a.annotator_id, "skips"] += a.state == "skipped"
    for m in members:
        for name in ("done", "skips"):
            counted = counts[m.project_id, m.annotator_id, name]
            if getattr(m, name) != counted:
                yield f"{name} of person {m.annotator_id} is {getattr(m, name)}; the log counts {counted}"
