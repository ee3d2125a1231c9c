"""What the pages share: the database and its writer, sessions, and short memories of people and projects."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ...errors import TastemakerError
from .. import people
from ..database import Database, get_setting, put_setting
from ..leases import expire
from ..log import APP
from ..pictures import PictureStore, store_of
from ..projects import View, load_project
from ..writer import Writer
from .markdown import to_html
from .security import LoginLimit, Sessions, Ticket

T = TypeVar("T")
ROOM = Path(__file__).parent.parent
REMEMBERED = 10.0  # seconds that a person or a project is believed without looking
SWEEP = 5.0  # seconds between looks for leases that ran out
AT_ONCE = 2  # passwords verified at a time
Exporter = Callable[[Database, int], bytes]


class NoSession(Exception):
    """Nobody is logged in."""


class Forbidden(TastemakerError):
    """Not with this role, or not with this form."""


@dataclass(frozen=True)
class Person:
    """Who is asking."""

    id: int
    login: str
    pseudonym: str
    role: str
    ticket: Ticket

    def is_at_least(self, role: str) -> bool:
        return people.ROLES.index(self.role) >= people.ROLES.index(role)


class State:
    """One per server. exporters: name -> a function that gives the zip of a project in a format of its own."""

    def __init__(self, database: Database, secure: bool = False, exporters: Mapping[str, Exporter] | None = None):
        self.database, self.exporters = database, dict(exporters or {})
        with database.session() as session:
            put_setting(session, "secret", secrets.token_urlsafe(48))
            self.sessions = Sessions(get_setting(session, "secret") or "", secure)
            self.pictures: PictureStore = store_of(session)
        self.limit, self.rng = LoginLimit(), random.Random(secrets.randbits(128))
        self.verifying = anyio.CapacityLimiter(AT_ONCE)
        self.looking = threading.Lock()
        self.statistics: dict[int, tuple[int, Any]] = {}  # project -> newest event, and the figures then
        self.writer = Writer(database.engine)
        self._people: dict[int, tuple[float, Any]] = {}
        self._projects: dict[int, tuple[float, View]] = {}
        self.templates = Environment(
            loader=FileSystemLoader(ROOM / "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals.update(app_version=APP, markdown=to_html)

    async def write(self, job: Callable[[Connection], T]) -> T:
        """Run a job in the writer; returns when it is on the disk."""
        return await self.writer.submit(job)

    async def sweep(self) -> None:
        """Until it is cancelled: end the leases that ran out, and keep the database's log of writes short."""
        while True:
            try:
                await self.write(lambda db: expire(db, time.time()))
                await asyncio.to_thread(self.database.checkpoint)
            except Exception:  # the next look may find the database well again
                logging.getLogger(__name__).exception("leases that ran out could not be ended")
            await asyncio.sleep(SWEEP)

    def project(self, db: Any, key: int) -> View:
        """Remembered for a moment; `db` is asked otherwise."""
        known = self._projects.get(key)
        if known is None or time.monotonic() > known[0]:
            known = time.monotonic() + REMEMBERED, load_project(db, key)
            self._projects[key] = known
        return known[1]

    def forget(self) -> None:
        """After a change of people or projects."""
        self._people.clear()
        self._projects.clear()

    def person(self, request: Request, role: str = "annotator") -> Person:
        """Who asks. Raises NoSession where nobody is logged in, Forbidden where the role is not enough."""
        ticket = self.sessions.read(request)
        row = self._row(ticket.person) if ticket is not None and ticket.person else None
        if ticket is None or row is None or row.erased_at is not None or row.epoch != ticket.epoch:
            raise NoSession
        person = Person(row.id, row.login, row.pseudonym, row.role, ticket)
        if not person.is_at_least(role):
            raise Forbidden(f"this page is for people with the role of {role}")
        return person

    def _row(self, key: int) -> Any:
        known = self._people.get(key)
        if known is None or time.monotonic() > known[0]:
            with self.database.looking() as connection:
                known = time.monotonic() + REMEMBERED, people.by_id(connection, key)
            self._people[key] = known
        return known[1]

    def caller(self, request: Request, role: str = "annotator") -> Person:
        """Who sends JSON; the form's token comes as a header. Raises as `person`, and Forbidden without the token."""
        person = self.person(request, role)
        if not self.sessions.form_fits(person.ticket, request.headers.get("x-form-token")):
            raise Forbidden("the page is out of date; load it again")
        return person

    async def form(self, request: Request, role: str = "annotator") -> tuple[Person, Any]:
        """Who sends a form, and the form. Raises as `caller`."""
        person = self.person(request, role)
        fields = await request.form(max_files=4000, max_fields=200)
        if not self.sessions.form_fits(person.ticket, fields.get("form_token")):
            raise Forbidden("the page is out of date; load it again")
        return person, fields

    def page(self, name: str, person: Person | None, status: int = 200, **values: Any) -> Response:
        """A page from a template."""
        token = self.sessions.form_token(person.ticket) if person else ""
        values = {"person": person, "form_token": token, **values}
        return HTMLResponse(self.templates.get_template(name).render(**values), status)


def state_of(request: Request) -> State:
    """Of the server that the request came to."""
    return request.app.state.tastemaker
