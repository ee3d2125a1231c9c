"""The event log: one function writes it, and nothing changes it."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from .database import Event
from .fixed import Fixed

# what happened, in words
KINDS = {
    "person": "an account was made",
    "password": "a password was set",
    "role": "a role was given",
    "erase": "a person was erased",
    "project": "a project was made or changed",
    "import": "items were added",
    "consent": "a person agreed to take part",
    "part": "a part of an answer was kept: a stage, or one picture's marks",
    "answer": "an answer",
    "skip": "an item was passed over",
    "blocked": "an answer was refused because the ranking contradicts the marks",
    "undo": "the last answer was taken back",
    "expire": "a lease ran out",
    "lease": "a lease that had run out was taken up again by the same person",
    "qualified": "the test was passed",
    "failed": "the test was not passed",
    "retest": "a person may take the test again",
    "accept": "a reviewer accepted an answer",
    "reject": "a reviewer rejected an answer; somebody else gets the item",
    "relabel": "a reviewer gave another answer",
}

try:
    APP = version("tastemaker")
except PackageNotFoundError:  # run from a folder that was never installed
    APP = "unknown"

_INSERT = Event.__table__.insert()  # type: ignore[attr-defined]
_EMPTY = dict.fromkeys(c.name for c in Event.__table__.columns if c.name != "id")


_ONCE = {
    dialect.__name__.rsplit(".", 1)[-1]: Fixed(
        dialect.insert(Event).on_conflict_do_nothing(index_elements=["client_token"]).returning(Event.id),
        list(_EMPTY),
    )
    for dialect in (sqlite, postgresql)
}


def record(db: Connection | Session, kind: str, **values: Any) -> int:
    """Add an event; the names are the columns of `database.Event`. Returns its number.

    Raises KeyError for a kind that is not one of KINDS.
    """
    return db.execute(_INSERT, _row(kind, values)).inserted_primary_key[0]  # type: ignore


def record_once(db: Connection, kind: str, **values: Any) -> int | None:
    """As `record`; None, and nothing is added, where `client_token` was used before."""
    kept = _ONCE[db.dialect.name].first(db, _row(kind, values))
    return None if kept is None else kept.id


def _row(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    row = {**_EMPTY, "at": time.time(), "app": APP, "late": False, **values, "kind": kind}
    assert KINDS[kind] and len(row) == len(_EMPTY), values
    return row
