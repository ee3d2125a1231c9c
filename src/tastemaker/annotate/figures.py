"""How far a project is, and how each person works: counts that the database itself can give, live."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from .database import Annotator, Assignment, Event, Item, Membership

A, I, E, M = Assignment.__table__, Item.__table__, Event.__table__, Membership.__table__  # noqa: E741
Access = Connection | Session
DAY = 86_400.0
RECENT = 200  # answers that a median is taken over


def pace(db: Access, project: int, person: int) -> dict[str, Any]:
    """Answers in the last day, and the median seconds of the last ones (None before the first)."""
    mine = (E.c.project_id == project) & (E.c.annotator_id == person) & (E.c.kind == "answer")
    rows = db.execute(select(E.c.ms, E.c.at).where(mine).order_by(E.c.id.desc()).limit(RECENT)).all()
    today = db.execute(select(func.count()).where(mine, E.c.at > time.time() - DAY)).scalar()
    known = [r.ms for r in rows if r.ms is not None]
    return {"today": today, "median_seconds": round(median(known) / 1000, 1) if known else None}


def progress(db: Access, project: int) -> dict[str, int]:
    """items, answers wanted, answers that count, leases out, reviews waiting, tests."""
    mine = I.c.project_id == project
    wanted, items, tests = db.execute(
        select(
            func.coalesce(func.sum(I.c.wanted), 0),
            func.coalesce(func.sum(case((I.c.gold.is_(None), 1), else_=0)), 0),
            func.coalesce(func.sum(case((I.c.gold.is_not(None), 1), else_=0)), 0),
        ).where(mine)
    ).one()
    work = A.c.kind.in_(("work", "relabel"))
    counted, leased, waiting = db.execute(
        select(
            func.coalesce(func.sum(case((work & (A.c.state == "answered"), 1), else_=0)), 0),
            func.coalesce(func.sum(case((A.c.state == "leased", 1), else_=0)), 0),
            func.coalesce(func.sum(case((A.c.review == "pending", 1), else_=0)), 0),
        ).where(A.c.project_id == project)
    ).one()
    names = ("items", "wanted", "counted", "leased", "waiting", "tests")
    return dict(zip(names, map(int, (items, wanted, counted, leased, waiting, tests))))


def people_of(db: Access, project: int) -> list[dict[str, Any]]:
    """A row for each member: counters and pace."""
    query = select(M, Annotator.pseudonym, Annotator.login, Annotator.role).join(Annotator)
    rows = db.execute(query.where(M.c.project_id == project).order_by(M.c.done.desc())).all()
    return [{**row._mapping, **pace(db, project, row.annotator_id)} for row in rows]


def by_hour(db: Access, project: int, hours: int = 48) -> list[int]:
    """Answers in each of the last hours, the oldest first."""
    now = time.time()
    mine = (E.c.project_id == project) & (E.c.kind == "answer") & (E.c.at > now - hours * 3600)
    found = [0] * hours
    for (at,) in db.execute(select(E.c.at).where(mine)):
        found[max(0, min(hours - 1, hours - 1 - int((now - at) / 3600)))] += 1
    return found


def last_event(db: Access) -> int:
    """The number of the newest entry of the log: as long as it is the same, so is every figure."""
    return db.execute(select(func.max(E.c.id))).scalar() or 0
