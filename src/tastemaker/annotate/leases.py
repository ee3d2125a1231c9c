"""Which item a person gets next, and for how long.

A lease takes one of the item's places at once. The item's row carries a version: the update that takes the place
names the version it has read and does nothing if somebody was quicker, so two people never get the same last place,
not even from two server processes. An item that a person had and let run out comes back to them as it was.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select, update
from sqlalchemy.engine import Connection, Row

from .database import Assignment, Event, Item, Membership
from .drafts import draft
from .log import record
from .projects import View, membership

TRIES = 8
APART = 5  # answers between a pair and its swapped repeat
A, I, E = Assignment.__table__, Item.__table__, Event.__table__  # noqa: E741

Task = dict[str, Any]

_COLUMNS = (I, A.c.id.label("had"), A.c.token.label("had_token"), A.c.shown.label("had_shown"))


def _candidates(kind: str, *wanted: Any) -> Any:
    """Items that the person has not had, or let run out."""
    mine = and_(A.c.item_id == I.c.id, A.c.annotator_id == bindparam("person"), A.c.kind.in_((kind, "relabel")))
    return (
        select(*_COLUMNS)
        .select_from(I.outerjoin(A, mine))
        .where(I.c.project_id == bindparam("project"), or_(A.c.id.is_(None), A.c.state == "expired"), *wanted)
        .limit(1)
    )


_NEXT = _candidates("work", I.c.open).order_by(I.c.priority.desc(), I.c.shuffle.desc())
_TEST = _candidates("test", I.c.gold.is_not(None), I.c.testing).order_by(I.c.shuffle)
_GOLD = _candidates("gold", I.c.gold.is_not(None), ~I.c.testing).order_by(func.random())
_HELD = (
    select(A.c.id, A.c.token, A.c.shown, I.c.prompt, I.c.pictures, I.c.sensitive)
    .join(I, A.c.item_id == I.c.id)
    .where(A.c.annotator_id == bindparam("person"), A.c.project_id == bindparam("project"), A.c.state == "leased")
    .order_by(A.c.leased_at, A.c.id)
)
_TAKE = (
    update(I)
    .where(I.c.id == bindparam("item"), I.c.version == bindparam("seen"))
    .values(taken=I.c.taken + 1, version=I.c.version + 1, open=I.c.taken + 1 < I.c.wanted)
)
_GIVE_BACK = (
    update(I)
    .where(I.c.id == bindparam("item"))
    .values(taken=I.c.taken - 1, version=I.c.version + 1, open=and_(I.c.gold.is_(None), I.c.taken - 1 < I.c.wanted))
)


def give_back(db: Connection, item: int) -> None:
    """The place is free for somebody else."""
    db.execute(_GIVE_BACK, {"item": item})


def take_if_free(db: Connection, item: int) -> bool:
    """A place for a late answer, if there still is one."""
    row = db.execute(select(I.c.version, I.c.taken, I.c.wanted).where(I.c.id == item)).one()
    return row.taken < row.wanted and db.execute(_TAKE, {"item": item, "seen": row.version}).rowcount == 1


def hold(db: Connection, project: View, person: int, ahead: int, rng: random.Random) -> list[Task]:
    """What the person holds, its time renewed, and new items until there are `ahead`."""
    mine = {"person": person, "project": project.id}
    held = db.execute(_HELD, mine).all()
    if held:
        until = time.time() + project.settings.lease_seconds
        db.execute(update(A).where(A.c.id.in_([h.id for h in held])).values(expires_at=until))
    tasks = [view(h.token, h.shown, h) | draft(db, h.id, h.shown) for h in held]
    while len(tasks) < ahead:
        found = lease(db, project, membership(db, project, person), rng)
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
        found = db.execute(_NEXT, who).first()
        if found is None:
            return None
        if db.execute(_TAKE, {"item": found.id, "seen": found.version}).rowcount == 1:
            return _assign(db, project, who, found, "work", rng)
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


def _repeat(db: Connection, project: View, who: Mapping[str, int]) -> Task | None:
    """One of the person's own answers, not among the last few and not repeated yet, in the opposite order."""
    later = A.alias()
    mine = and_(A.c.annotator_id == who["person"], A.c.project_id == project.id)
    recent = (
        select(A.c.id, A.c.item_id, A.c.shown, A.c.answered_at)
        .where(mine, A.c.kind == "work", A.c.state == "answered")
        .order_by(A.c.answered_at.desc())
        .offset(APART)
        .limit(50)
        .subquery()
    )
    once = select(later.c.id).where(
        later.c.item_id == recent.c.item_id, later.c.annotator_id == who["person"], later.c.kind == "repeat"
    )
    found = db.execute(
        select(I, recent.c.shown.label("first"))
        .join(recent, recent.c.item_id == I.c.id)
        .where(~once.exists())
        .order_by(recent.c.answered_at)
        .limit(1)
    ).first()
    return None if found is None else _insert(db, project, who, found, "repeat", list(reversed(found.first)))


def _assign(db: Connection, project: View, who: Mapping[str, int], item: Row, kind: str, rng: random.Random) -> Task:
    if item.had is not None:  # let run out before: the same order and the same names again
        now = time.time()
        again = {"state": "leased", "leased_at": now, "expires_at": now + project.settings.lease_seconds}
        db.execute(update(A).where(A.c.id == item.had).values(**again, version=A.c.version + 1))
        names = {"project_id": project.id, "annotator_id": who["person"], "item_id": item.id}
        record(db, "lease", assignment_id=item.had, **names)
        return view(item.had_token, item.had_shown, item) | draft(db, item.had, item.had_shown)
    shown = list(range(len(item.pictures)))
    rng.shuffle(shown)
    return _insert(db, project, who, item, kind, shown)


def _insert(db: Connection, project: View, who: Mapping[str, int], item: Row, kind: str, shown: list[int]) -> Task:
    now, token = time.time(), secrets.token_urlsafe(16)
    row = {
        "token": token,
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
    db.execute(A.insert(), row)
    return view(token, shown, item)


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
_COUNT = (
    update(M)
    .where(M.c.project_id == bindparam("project"), M.c.annotator_id == bindparam("person"))
    .values({name: M.c[name] + bindparam(f"step_{name}") for name in STEPS})
    .returning(*M.c)
)


def count_done(db: Connection, project: int, person: int, **steps: int) -> Row:
    """Move the counters of a membership; returns it as it is then. steps: of STEPS."""
    moved = {f"step_{name}": steps.get(name, 0) for name in STEPS}
    return db.execute(_COUNT, {"project": project, "person": person, **moved}).one()
