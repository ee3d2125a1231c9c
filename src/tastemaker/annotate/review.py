"""The reviewer's queue: accept an answer, reject it (somebody else then gets the item), or give the right one.

A reviewer sees pictures, prompt, answer and the annotator's pseudonym; models and file names stay hidden here too.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from ..errors import TastemakerError, expect
from .answers import as_shown, canonical
from .database import Annotator, Assignment, Event, Item
from .leases import give_back
from .log import record
from .projects import View
from .submit import Conflict

A, I, E = Assignment.__table__, Item.__table__, Event.__table__  # noqa: E741
VERDICTS = ("accept", "reject", "relabel")
STATES = {"accept": "accepted", "reject": "rejected", "relabel": "relabelled"}

_QUEUE = (
    select(A, I.c.prompt, I.c.pictures, I.c.sensitive, Annotator.pseudonym)
    .join(I, A.c.item_id == I.c.id)
    .join(Annotator, A.c.annotator_id == Annotator.id)
)


def queue(db: Connection | Session, project: int, reviewer: int, most: int = 50) -> list[Row]:
    """Answers that wait, the oldest first; nobody reviews their own."""
    wanted = (A.c.project_id == project) & (A.c.review == "pending") & (A.c.annotator_id != reviewer)
    return list(db.execute(_QUEUE.where(wanted).order_by(A.c.answered_at).limit(most)))


def shown_answer(db: Connection | Session, task: Row) -> dict[str, Any]:
    """The last answer of a task, as it was shown."""
    last = select(E.c.answer).where(E.c.assignment_id == task.id, E.c.kind == "answer").order_by(E.c.id.desc())
    return as_shown(task.shown, db.execute(last.limit(1)).scalar() or {})


def decide(
    db: Connection, project: View, reviewer: int, token: str, verdict: str, answer: Any = None, reason: str = ""
) -> None:
    """One verdict on one waiting answer. answer: for `relabel`, as the page showed it.

    Raises Conflict where the answer no longer waits, TastemakerError for another verdict or a wrong answer.
    """
    expect(verdict in VERDICTS, f"a verdict of {', '.join(VERDICTS)}", verdict)
    mine = (A.c.token == token) & (A.c.project_id == project.id) & (A.c.annotator_id != reviewer)
    task = db.execute(_QUEUE.where(mine)).first()
    if task is None:
        raise TastemakerError("there is no such answer to review")
    waits = (A.c.id == task.id) & (A.c.review == "pending") & (A.c.version == task.version)
    state = "answered" if verdict == "accept" else "rejected"
    values = {"review": STATES[verdict], "state": state, "version": A.c.version + 1}
    if db.execute(update(A).where(waits).values(**values)).rowcount != 1:
        raise Conflict("this answer no longer waits: it was taken back or reviewed already")
    names = {"project_id": project.id, "item_id": task.item_id, "assignment_id": task.id, "shown": task.shown}
    if verdict == "relabel":
        found = canonical(project.settings, task.shown, answer)
        expect(found.get("choice") != "skip", "an answer, not a skip", "skip")
        own = _own(db, task, reviewer)
        record(db, "reject", annotator_id=reviewer, about={"relabelled_by": own}, **names)
        instead = {"instead_of": task.id}
        record(db, "relabel", annotator_id=reviewer, answer=found, about=instead, **{**names, "assignment_id": own})
        return
    if verdict == "reject":
        give_back(db, task.item_id)
    about = {"reason": str(reason)[:200]} if reason else None
    record(db, verdict, annotator_id=reviewer, about=about, **names)


def _own(db: Connection, task: Row, reviewer: int) -> int:
    """The reviewer's answer stands in the place of the other, which keeps the item as taken as it was."""
    now = time.time()
    row = {
        "token": secrets.token_urlsafe(16),
        "project_id": task.project_id,
        "item_id": task.item_id,
        "annotator_id": reviewer,
        "kind": "relabel",
        "shown": task.shown,
        "state": "answered",
        "review": "accepted",
        "leased_at": now,
        "expires_at": now,
        "answered_at": now,
        "version": 0,
    }
    has = select(A.c.id).where(
        A.c.item_id == task.item_id, A.c.annotator_id == reviewer, A.c.kind.in_(("work", "relabel"))
    )
    if db.execute(has).first():
        raise Conflict("you have answered this item yourself; accept or reject this answer, or leave it to others")
    return db.execute(A.insert(), row).inserted_primary_key[0]  # type: ignore[index]
