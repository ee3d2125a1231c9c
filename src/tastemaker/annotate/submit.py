"""What a person does with a task: keep a part, answer, skip, take back. Each is one transaction with its log entry.

Sending the same thing twice does no harm: every sending carries a token of the client's own making, the log holds
each token once, and the second sending gets the first one's acknowledgement.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.engine import Connection, Row

from ..errors import TastemakerError
from .answers import agrees, canonical, violations
from .database import Assignment, Event, Item, Membership
from .drafts import canonical_part, draft
from .fixed import Fixed
from .leases import count_done, give_back, take_if_free, test_begins, view
from .log import record, record_once
from .projects import View, membership

A, I, E = Assignment.__table__, Item.__table__, Event.__table__  # noqa: E741
COUNTED = ("answered",)  # states in which the answer counts
MOST_MS = 86_400_000


class NotYours(TastemakerError):
    """There is no such task for this person."""


class Conflict(TastemakerError):
    """The task is in a state in which this cannot be done."""


@dataclass(frozen=True)
class Sent:
    """What came from the page, beside the answer itself."""

    client_token: str
    ms: int | None = None
    client: str = ""
    guideline: int | None = None  # the version that the page had; the present one if not said

    def row(self, project: View) -> dict[str, Any]:
        token = self.client_token
        if not isinstance(token, str) or not 8 <= len(token) <= 64:
            raise TastemakerError("expected a client_token of 8 to 64 letters")
        ms = None if self.ms is None else max(0, min(int(self.ms), MOST_MS))
        return {
            "client_token": token,
            "ms": ms,
            "client": str(self.client)[:120] or None,
            "guideline": project.guideline if self.guideline is None else min(self.guideline, project.guideline),
        }


_SETTLE = Fixed(
    update(A)
    .where(A.c.id == bindparam("task"), A.c.version == bindparam("seen"))
    .values(state=bindparam("to"), answered_at=bindparam("now"), review=bindparam("look"), version=A.c.version + 1)
)
_TASK = select(A, I.c.gold, I.c.prompt, I.c.pictures, I.c.sensitive).join(I, A.c.item_id == I.c.id)

_OWN = Fixed(_TASK.where(A.c.token == bindparam("wanted"), A.c.annotator_id == bindparam("person")))


def find_task(db: Connection, token: str, person: int) -> Row:
    """Raises NotYours for the tokens of others as for those that do not exist."""
    row = _OWN.first(db, {"wanted": token, "person": person})
    if row is None or row.kind == "relabel":
        raise NotYours("there is no such task")
    return row


def keep_part(db: Connection, project: View, task: Row, part: Any, sent: Sent) -> dict[str, Any]:
    """Keep a stage, or one picture's marks, and renew the lease."""
    if task.state not in ("leased", "expired"):
        raise Conflict("this task is answered already")
    answer = canonical_part(project.settings, task.shown, part)
    number, first = write(db, project, task, "part", answer, sent)
    if first and task.state == "leased":
        until = time.time() + project.settings.lease_seconds
        db.execute(update(A).where(A.c.id == task.id).values(expires_at=until))
    return {"event": number, "kept": True}


def answer(db: Connection, project: View, task: Row, given: Any, sent: Sent) -> tuple[dict[str, Any], Row | None]:
    """Keep an answer or a skip. Returns (what the page is told, the person's membership or None if nothing is new).

    The page is told the answer's number in the log, whether it came late, whether it counts, and the pairs of
    pictures [i, j], as shown, whose ranking contradicts the marks. Where contradictions are blocked, the attempt is
    logged and `blocked` is true. Raises Conflict for a task that was answered otherwise, and where no skip is left.
    """
    repeated = acknowledged(db, task, sent)
    if repeated is not None:
        return repeated, None
    if task.state not in ("leased", "expired"):
        raise Conflict("this task is answered already; take it back to answer it again")
    found = canonical(project.settings, task.shown, given)
    against = [] if project.settings.consistency == "off" else violations(found)
    places = [[task.shown.index(i), task.shown.index(j)] for i, j in against]
    if against and project.settings.consistency == "block":
        number, _ = write(db, project, task, "blocked", found, sent, {"violations": against})
        return {"event": number, "blocked": True, "violations": places}, None
    if found.get("choice") == "skip":
        return _skip(db, project, task, found, sent)
    about: dict[str, Any] = {"violations": against} if against else {}
    if task.gold is not None:
        about["right"] = agrees(task.gold, found)
    late = task.state == "expired"
    state = "late" if late and task.kind == "work" and not take_if_free(db, task.item_id) else "answered"
    number, _ = write(db, project, task, "answer", found, sent, about | {"state": state}, late)
    _settle(db, task, state, project)
    member = _count(db, project, task, about)
    return {"event": number, "late": late, "counted": state in COUNTED, "violations": places}, member


def acknowledged(db: Connection, task: Row, sent: Sent) -> dict[str, Any] | None:
    """What was said to the first sending of the same token, or None."""
    if task.state == "leased" and task.version == 0:  # nothing was sent for it yet
        return None
    before = db.execute(select(E).where(E.c.client_token == sent.client_token)).first()
    if before is None or before.assignment_id != task.id:
        return None
    about = before.about or {}
    found = [[task.shown.index(i), task.shown.index(j)] for i, j in about.get("violations", ())]
    said = {"event": before.id, "late": before.late, "violations": found, "again": True}
    if before.kind == "blocked":
        return said | {"blocked": True}
    return said | {"counted": about.get("state") in COUNTED}


def _skip(
    db: Connection, project: View, task: Row, found: Mapping[str, Any], sent: Sent
) -> tuple[dict[str, Any], Row]:
    member = membership(db, project, task.annotator_id)
    if task.kind == "test":
        raise Conflict("the items of the test cannot be skipped")
    if member.skips >= project.settings.skip_limit:
        raise Conflict(f"all {project.settings.skip_limit} skips are used; please answer as well as you can")
    late = task.state == "expired"
    number, _ = write(db, project, task, "skip", found, sent, late=late)
    if task.kind == "work" and not late:
        give_back(db, task.item_id)
    _settle(db, task, "skipped", project)
    member = count_done(db, project.id, task.annotator_id, skips=1)
    return {"event": number, "late": late, "counted": False, "violations": []}, member


def write(
    db: Connection,
    project: View,
    task: Row,
    kind: str,
    answer: Mapping[str, Any] | None,
    sent: Sent,
    about: Mapping[str, Any] | None = None,
    late: bool = False,
) -> tuple[int, bool]:
    """(number in the log, whether it is new). Raises Conflict where the token belongs to something else."""
    names = {"annotator_id": task.annotator_id, "item_id": task.item_id, "assignment_id": task.id}
    row = {**sent.row(project), **names, "project_id": project.id, "shown": task.shown, "answer": answer}
    number = record_once(db, kind, **row, about=about or None, late=late)
    if number is not None:
        return number, True
    same = (E.c.client_token == sent.client_token) & (E.c.assignment_id == task.id) & (E.c.kind == kind)
    number = db.execute(select(E.c.id).where(same)).scalar()
    if number is None or kind not in ("part", "blocked"):
        raise Conflict("this client_token was used before; make a new one for each sending")
    return number, False


def _settle(db: Connection, task: Row, state: str, project: View) -> None:
    """Raises Conflict where another sending of the same task was quicker."""
    rate = project.settings.review if (state, task.kind) == ("answered", "work") else 0.0
    seen = rate > 0 and secrets.SystemRandom().random() < rate
    row = {"task": task.id, "seen": task.version, "to": state, "now": time.time(), "look": "pending" if seen else ""}
    if _SETTLE.changed(db, row) != 1:
        raise Conflict("this task has just been answered elsewhere")


def _count(db: Connection, project: View, task: Row, about: Mapping[str, Any], step: int = 1) -> Row:
    """Move the person's counters; the last item of the test decides."""
    gold = {} if task.gold is None else {"gold_seen": step, "gold_right": step * bool(about["right"])}
    member = count_done(db, project.id, task.annotator_id, done=step * (task.kind != "test"), **gold)
    if task.kind == "test" and member.status == "testing":
        decide_test(db, project, task.annotator_id)
        return membership(db, project, task.annotator_id)
    return member


def decide_test(db: Connection, project: View, person: int) -> None:
    """Passed or not, once all items of the test are answered."""
    mine = (A.c.annotator_id == person) & (A.c.project_id == project.id) & (A.c.kind == "test")
    mine &= A.c.id > test_begins(db, project, person)
    last = select(E.c.about).join(A, A.c.id == E.c.assignment_id).where(mine, E.c.kind == "answer")
    right = [bool(about and about.get("right")) for (about,) in db.execute(last)]
    if len(right) < project.settings.qualification:
        return
    share = sum(right) / len(right)
    status = "qualified" if share >= project.settings.threshold else "failed"
    own = (Membership.project_id == project.id) & (Membership.annotator_id == person)
    db.execute(update(Membership).where(own).values(status=status))
    record(db, status, project_id=project.id, annotator_id=person, about={"share": round(share, 4)})


def undo(db: Connection, project: View, person: int, sent: Sent) -> dict[str, Any] | None:
    """Take back the person's last answer or skip; the task comes again as it was, with what was answered.

    None where there is nothing to take back: tests and answers that a reviewer has seen stay.
    """
    sent_before = select(E.c.assignment_id).where(E.c.client_token == sent.client_token, E.c.kind == "undo")
    before = db.execute(_TASK.where(A.c.id.in_(sent_before), A.c.annotator_id == person)).first()
    if before is not None:
        return view(before.token, before.shown, before) | draft(db, before.id, before.shown)
    mine = (A.c.annotator_id == person) & (A.c.project_id == project.id) & A.c.answered_at.is_not(None)
    given = mine & A.c.state.in_(("answered", "skipped", "late")) & (A.c.kind != "relabel")
    task = db.execute(_TASK.where(given).order_by(A.c.answered_at.desc(), A.c.id.desc()).limit(1)).first()
    if task is None or task.kind == "test" or task.review not in ("", "pending"):
        return None
    last = db.execute(
        select(E)
        .where(E.c.assignment_id == task.id, E.c.kind.in_(("answer", "skip")))
        .order_by(E.c.id.desc())
        .limit(1)
    ).one()
    # a skip or an uncounted answer holds no place: it takes one if one is free, else the new answer comes late again
    has_place = task.kind != "work" or task.state == "answered" or take_if_free(db, task.item_id)
    now, state = time.time(), "leased" if has_place else "expired"
    write(db, project, task, "undo", None, sent, {"of": last.id, "state": state})
    fresh = {"state": state, "leased_at": now, "expires_at": now + project.settings.lease_seconds, "review": ""}
    db.execute(update(A).where(A.c.id == task.id).values(**fresh, answered_at=None, version=A.c.version + 1))
    if last.kind == "skip":
        count_done(db, project.id, person, skips=-1)
    else:
        _count(db, project, task, last.about or {}, step=-1)
    return view(task.token, task.shown, task) | draft(db, task.id, task.shown)


def retest(db: Connection, project: View, person: int, by: int | None = None) -> None:
    """Let a person take the test again, on items that they have not seen; what they answered stays in the log."""
    own = (Membership.project_id == project.id) & (Membership.annotator_id == person)
    fresh = {"status": "testing" if project.settings.qualification else "qualified"}
    db.execute(update(Membership).where(own).values(**fresh))
    last = db.execute(select(func.coalesce(func.max(A.c.id), 0))).scalar()
    record(db, "retest", project_id=project.id, annotator_id=person, about={"by": by, "after": last})
