"""Which item a person gets next, and for how long.

A lease takes one of the item's places at once, by one update that looks for the item and does nothing where the last
place has gone meanwhile, so two people never get the same last place, not even from two server processes. An item
that a person had and let run out comes back to them as it was.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row

from .database import Assignment, Event, Item, Membership
from .drafts import draft
from .fixed import Fixed
from .log import record
from .projects import View, membership

TRIES = 8
APART = 5  # answers between a pair and its swapped repeat
A, I, E = Assignment.__table__, Item.__table__, Event.__table__  # noqa: E741

Task = dict[str, Any]

_SEEN = I.alias("seen")  # the items to choose from, in an update that changes one


def _candidate(kind: str, *wanted: Any) -> Any:
    """An item of `seen` that the person has not had, or let run out."""
    mine = and_(A.c.item_id == _SEEN.c.id, A.c.annotator_id == bindparam("person"))
    mine &= or_(A.c.kind == kind, A.c.kind == "relabel")
    had = select(A.c.id).where(mine, A.c.state != "expired").exists()
    return select(_SEEN).where(_SEEN.c.project_id == bindparam("project"), *wanted, ~had).limit(1)


_NEXT = _candidate("work", _SEEN.c.open).order_by(_SEEN.c.priority.desc(), _SEEN.c.shuffle.desc())
_TEST = _candidate("test", _SEEN.c.gold.is_not(None), _SEEN.c.testing).order_by(_SEEN.c.shuffle)
_GOLD = _candidate("gold", _SEEN.c.gold.is_not(None), ~_SEEN.c.testing).order_by(func.random())
_HELD = (
    select(A.c.id, A.c.token, A.c.shown, I.c.prompt, I.c.pictures, I.c.sensitive)
    .join(I, A.c.item_id == I.c.id)
    .where(A.c.annotator_id == bindparam("person"), A.c.project_id == bindparam("project"), A.c.state == "leased")
    .order_by(A.c.leased_at, A.c.id)
)
_PLACE = update(I).values(taken=I.c.taken + 1, open=I.c.taken + 1 < I.c.wanted)
_TAKE_NEXT = Fixed(
    _PLACE.where(I.c.id == _NEXT.with_only_columns(_SEEN.c.id).scalar_subquery(), I.c.open).returning(
        I.c.id, I.c.prompt, I.c.pictures, I.c.sensitive
    )
)
_TAKE = _PLACE.where(I.c.id == bindparam("item"), I.c.taken < I.c.wanted)
_GIVE_BACK = (
    update(I)
    .where(I.c.id == bindparam("item"))
    .values(taken=I.c.taken - 1, open=and_(I.c.gold.is_(None), I.c.taken - 1 < I.c.wanted))
)


def _given(dialect: Any) -> Fixed:
    """The assignment of an item to a person: a new one, or theirs that ran out, as it was."""
    fresh = dialect.insert(A)
    again = {"state": "leased", "version": A.c.version + 1}
    again |= {name: fresh.excluded[name] for name in ("leased_at", "expires_at")}
    once = [A.c.item_id, A.c.annotator_id, A.c.kind]
    kept = fresh.on_conflict_do_update(index_elements=once, set_=again, where=A.c.state == "expired")
    columns = [c.name for c in A.c if c.name != "id"]
    return Fixed(kept.returning(A.c.id, A.c.token, A.c.shown, A.c.version), columns)


_GIVE = {"sqlite": _given(sqlite), "postgresql": _given(postgresql)}


def give_back(db: Connection, item: int) -> None:
    """The place is free for somebody else."""
    db.execute(_GIVE_BACK, {"item": item})


def take_if_free(db: Connection, item: int) -> bool:
    """A place for a late answer, if there still is one."""
    return db.execute(_TAKE, {"item": item}).rowcount == 1


def hold(db: Connection, project: View, person: int, ahead: int, rng: random.Random) -> list[Task]:
    """What the person holds, its time renewed, and new items until there are `ahead`."""
    mine = {"person": person, "project": project.id}
    held = db.execute(_HELD, mine).all()
    if held:
        until = time.time() + project.settings.lease_seconds
        db.execute(update(A).where(A.c.id.in_([h.id for h in held])).values(expires_at=until))
    tasks = [view(h.token, h.shown, h) | draft(db, h.id, h.shown) for h in held]
    member = membership(db, project, person)
    while len(tasks) < ahead:
        found = lease(db, project, member, rng)
        if found is None:
            break
        tasks.append(found)
    return tasks


def lease(db: Connection, project: View, member: Row, rng: random.Random) -> Task | None:
    """One more item for the person, or None: nothing is left, the quota is reached, or the test decides first."""
    settings, who = project.settings, {"person": member.annotator_id, "project": project.id}
    if project.closed or member.status == "failed":
        return None
    if member.status == "testing":
        return _testing(db, project, who)
    quota = settings.quota if member.quota is None else member.quota
    if quota and member.done + len(db.execute(_HELD, who).all()) >= quota:
        return None
    if settings.gold_rate and rng.random() < settings.gold_rate:
        found = db.execute(_GOLD, who).first()
        if found is not None:
            return _assign(db, project, who, found, "gold", rng)
    if settings.repeat_rate and rng.random() < settings.repeat_rate:
        again = _repeat(db, project, who)
        if again is not None:
            return again
    return _work(db, project, who, rng)


def _work(db: Connection, project: View, who: Mapping[str, int], rng: random.Random) -> Task | None:
    for _ in range(TRIES):
        taken = _TAKE_NEXT.first(db, who)
        if taken is not None:
            task = _assign(db, project, who, taken, "work", rng)
            if task is None:
                give_back(db, taken.id)
            return task
        if db.execute(_NEXT, who).first() is None:
            return None
    return None  # somebody was quicker each time; the page asks again


def _testing(db: Connection, project: View, who: Mapping[str, int]) -> Task | None:
    mine = (A.c.annotator_id == who["person"]) & (A.c.project_id == project.id) & (A.c.kind == "test")
    begins = test_begins(db, project, who["person"])
    given = select(func.count()).where(mine, A.c.state != "expired", A.c.id > begins)
    if (db.execute(given).scalar() or 0) >= project.settings.qualification:
        return None
    found = db.execute(_TEST, who).first()
    return None if found is None else _assign(db, project, who, found, "test", random.SystemRandom())


def test_begins(db: Connection, project: View, person: int) -> int:
    """Assignments after this number belong to the person's present test."""
    again = (E.c.kind == "retest") & (E.c.annotator_id == person) & (E.c.project_id == project.id)
    about = db.execute(select(E.c.about).where(again).order_by(E.c.id.desc()).limit(1)).scalar()
    return about["after"] if about else 0


def _answered_once() -> Any:
    """Of a person's own answers, not among the last few, the first that was not asked again yet."""
    later = A.alias()
    person: Any = bindparam("person")
    recent = (
        select(A.c.id, A.c.item_id, A.c.shown, A.c.answered_at)
        .where(A.c.annotator_id == person, A.c.project_id == bindparam("project"))
        .where(A.c.kind == "work", A.c.state == "answered")
        .order_by(A.c.answered_at.desc())
        .offset(APART)
        .limit(50)
        .subquery()
    )
    again = select(later.c.id).where(
        later.c.item_id == recent.c.item_id, later.c.annotator_id == person, later.c.kind == "repeat"
    )
    return (
        select(I.c.id, I.c.prompt, I.c.pictures, I.c.sensitive, recent.c.shown.label("first"))
        .join(recent, recent.c.item_id == I.c.id)
        .where(~again.exists())
        .order_by(recent.c.answered_at)
        .limit(1)
    )


_REPEAT = Fixed(_answered_once())


def _repeat(db: Connection, project: View, who: Mapping[str, int]) -> Task | None:
    """One of the person's own answers again, in the opposite order."""
    found = _REPEAT.first(db, who)
    return None if found is None else _give(db, project, who, found, "repeat", list(reversed(found.first)))


def _assign(
    db: Connection, project: View, who: Mapping[str, int], item: Row, kind: str, rng: random.Random
) -> Task | None:
    shown = list(range(len(item.pictures)))
    rng.shuffle(shown)
    return _give(db, project, who, item, kind, shown)


def _give(
    db: Connection, project: View, who: Mapping[str, int], item: Row, kind: str, shown: list[int]
) -> Task | None:
    """None where the same person got it at the same moment by another server."""
    now = time.time()
    row = {
        "token": secrets.token_urlsafe(16),
        "project_id": project.id,
        "item_id": item.id,
        "annotator_id": who["person"],
        "kind": kind,
        "shown": shown,
        "state": "leased",
        "review": "",
        "leased_at": now,
        "expires_at": now + project.settings.lease_seconds,
        "answered_at": None,
        "version": 0,
    }
    given = _GIVE[db.dialect.name].first(db, row)
    if given is None:
        return None
    task = view(given.token, given.shown, item)
    if given.version == 0:
        return task
    names = {"project_id": project.id, "annotator_id": who["person"], "item_id": item.id}
    record(db, "lease", assignment_id=given.id, **names)  # had before and let run out: it is as it was
    return task | draft(db, given.id, given.shown)


def view(token: str, shown: list[int], item: Row) -> Task:
    """What the page learns of a task: neither the item, nor its pictures' names, nor whether it is a test."""
    pictures = [{"url": f"/pictures/{token}/{k}"} for k in range(len(shown))]
    return {"token": token, "prompt": item.prompt, "sensitive": bool(item.sensitive), "pictures": pictures}


def expire(db: Connection, now: float) -> int:
    """End the leases whose time is over; their places are free again. Returns how many."""
    over = db.execute(
        select(A.c.id, A.c.item_id, A.c.project_id, A.c.annotator_id, A.c.kind, A.c.version)
        .where(A.c.state == "leased", A.c.expires_at < now)
        .limit(500)
    ).all()
    for row in over:
        mine = and_(A.c.id == row.id, A.c.version == row.version, A.c.state == "leased")
        if db.execute(update(A).where(mine).values(state="expired", version=A.c.version + 1)).rowcount:
            names = {"project_id": row.project_id, "annotator_id": row.annotator_id, "item_id": row.item_id}
            record(db, "expire", assignment_id=row.id, **names)
            if row.kind == "work":
                give_back(db, row.item_id)
    return len(over)


M = Membership.__table__
STEPS = ("done", "skips", "gold_seen", "gold_right")
_COUNT = Fixed(
    update(M)
    .where(M.c.project_id == bindparam("project"), M.c.annotator_id == bindparam("person"))
    .values({name: M.c[name] + bindparam(f"step_{name}") for name in STEPS})
    .returning(*M.c)
)


def count_done(db: Connection, project: int, person: int, **steps: int) -> Row:
    """Move the counters of a membership; returns it as it is then. steps: of STEPS."""
    moved = {f"step_{name}": steps.get(name, 0) for name in STEPS}
    member = _COUNT.first(db, {"project": project, "person": person, **moved})
    assert member is not None, "a task belongs to a member"
    return member
