"""Projects: what is asked, by which guideline, and who takes part."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from ..errors import TastemakerError, UnknownName
from .database import Guideline, Membership, Project
from .log import record
from .presets import GUIDELINES, Settings

Access = Connection | Session


@dataclass(frozen=True)
class View:
    """A project as work needs it."""

    id: int
    name: str
    settings: Settings
    guideline: int
    closed: bool


def create_project(db: Access, name: str, settings: Settings, guideline: str = "", by: int | None = None) -> int:
    """Its id. guideline: Markdown; the preset's own if empty. Raises TastemakerError for a name that is taken."""
    name = name.strip()
    if not 0 < len(name) <= 80:
        raise TastemakerError(f"expected a project's name of at most 80 letters, got {name!r}")
    if db.execute(select(Project.id).where(Project.name == name)).first():
        raise TastemakerError(f"there is a project '{name}' already; choose another name")
    now = time.time()
    row = {"name": name, "settings": settings.plain(), "guideline": 1, "closed": False, "created_at": now}
    key = db.execute(Project.__table__.insert().values(**row)).inserted_primary_key[0]  # type: ignore
    text = guideline.strip() or GUIDELINES[settings.preset]
    db.execute(Guideline.__table__.insert().values(project_id=key, version=1, text=text, at=now))  # type: ignore
    record(db, "project", project_id=key, annotator_id=by, guideline=1, about={"settings": settings.plain()})
    return key


def load_project(db: Access, key: int) -> View:
    """Raises TastemakerError where there is none."""
    row = db.execute(select(Project.__table__).where(Project.id == key)).first()
    if row is None:
        raise TastemakerError("there is no such project")
    return _view(row)


def find_project(db: Access, name: str) -> View:
    """By name. Raises UnknownName with those that exist."""
    found = {p.name: p for p in all_projects(db)}
    if name not in found:
        raise UnknownName("project", name, found)
    return found[name]


def all_projects(db: Access) -> list[View]:
    return [_view(row) for row in db.execute(select(Project.__table__).order_by(Project.id))]


def _view(row: Row) -> View:
    return View(row.id, row.name, Settings.of(row.settings), row.guideline, row.closed)


def change_project(db: Access, key: int, closed: bool | None = None, by: int | None = None, **settings: Any) -> None:
    """Other settings (the preset stays), open or closed. Items already given out keep their overlap."""
    before = load_project(db, key)
    if settings.get("preset", before.settings.preset) != before.settings.preset:
        raise TastemakerError("a project keeps its preset; make a new project instead")
    after = Settings.of({**before.settings.plain(), **settings})
    values = {"settings": after.plain(), "closed": before.closed if closed is None else closed}
    db.execute(update(Project).where(Project.id == key).values(**values))
    record(db, "project", project_id=key, annotator_id=by, about=values)


def set_guideline(db: Access, key: int, text: str, by: int | None = None) -> int:
    """A new version; answers given from now on carry its number."""
    if not text.strip():
        raise TastemakerError("expected the text of a guideline, got nothing")
    version = load_project(db, key).guideline + 1
    db.execute(
        Guideline.__table__.insert().values(project_id=key, version=version, text=text.strip(), at=time.time())  # type: ignore
    )
    db.execute(update(Project).where(Project.id == key).values(guideline=version))
    record(db, "project", project_id=key, annotator_id=by, guideline=version)
    return version


def guideline_text(db: Access, key: int, version: int) -> str | None:
    wanted = (Guideline.project_id == key) & (Guideline.version == version)
    return db.execute(select(Guideline.text).where(wanted)).scalar()


_MEMBER = select(Membership.__table__).where(
    Membership.project_id == bindparam("project"), Membership.annotator_id == bindparam("person")
)


def membership(db: Access, project: View, person: int) -> Row:
    """How the person stands in the project; a new one begins with the test, if there is one."""
    mine = {"project": project.id, "person": person}
    row = db.execute(_MEMBER, mine).first()
    if row is not None:
        return row
    fresh = dict.fromkeys(("done", "skips", "gold_seen", "gold_right"), 0)
    status = "testing" if project.settings.qualification else "qualified"
    db.execute(
        Membership.__table__.insert().values(project_id=project.id, annotator_id=person, status=status, **fresh)  # type: ignore
    )
    return db.execute(_MEMBER, mine).one()


def set_quota(db: Access, project: View, person: int, quota: int | None, by: int | None = None) -> None:
    """How many answers this person may give here; None for the project's own."""
    membership(db, project, person)
    mine = (Membership.project_id == project.id) & (Membership.annotator_id == person)
    db.execute(update(Membership).where(mine).values(quota=quota))
    record(db, "project", project_id=project.id, annotator_id=person, about={"quota": quota, "by": by})


def consent(db: Access, project: View, person: int) -> None:
    membership(db, project, person)
    mine = (Membership.project_id == project.id) & (Membership.annotator_id == person)
    db.execute(update(Membership).where(mine).values(consented_at=time.time()))
    record(db, "consent", project_id=project.id, annotator_id=person, guideline=project.guideline)
