"""The busiest request: an answer comes, is kept, and brings the next task. It goes past the table of routes."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection, Row
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import TastemakerError
from ...page_server import json_body
from ..leases import lease
from ..projects import View
from ..submit import Sent, answer, find_task
from .replies import KNOWN, reply_to
from .state import Person, State

BEFORE, AFTER = "/api/tasks/", "/answer"


class Answers:
    """ASGI: `POST /api/tasks/TOKEN/answer` is done here, everything else is handed on."""

    def __init__(self, app: Any, state: State):
        self.app, self.state = app, state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        token = _task_of(scope)
        if token is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            reply = await self._keep(request, token)
        except KNOWN as error:
            reply = reply_to(self.state, request, error)
        await reply(scope, receive, send)

    async def _keep(self, request: Request, token: str) -> Response:
        person, body = self.state.caller(request), await json_body(request)
        said = await self.state.write(lambda db: _answer(self.state, db, person, token, body))
        return JSONResponse(said, 422 if said.get("blocked") else 200)


def _task_of(scope: Any) -> str | None:
    """The token of the task that is answered, where this is an answer."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path = scope["path"]
    if not (path.startswith(BEFORE) and path.endswith(AFTER)):
        return None
    token = path[len(BEFORE) : -len(AFTER)]
    return token if token and "/" not in token else None


def _answer(state: State, db: Connection, person: Person, token: str, body: dict[str, Any]) -> dict[str, Any]:
    """One transaction: the answer, and the next task for the place that became free on the page."""
    task = find_task(db, token, person.id)
    view = state.project(db, task.project_id)
    said, member = answer(db, view, task, body.get("answer"), sent_of(body))
    if member is None:
        return said
    return {**said, "next": lease(db, view, member, state.rng), "progress": progress(view, member)}


def progress(project: View, member: Row) -> dict[str, Any]:
    """How far a person is; nothing that tells a hidden test from work."""
    quota = project.settings.quota if member.quota is None else member.quota
    skips = max(0, project.settings.skip_limit - member.skips)
    return {"done": member.done, "quota": quota or None, "skips_left": skips, "status": member.status}


def sent_of(body: dict[str, Any]) -> Sent:
    """What came beside the answer. Raises TastemakerError for numbers that cannot be."""
    ms = body.get("ms")
    fits = ms is None or isinstance(ms, int | float) and not isinstance(ms, bool) and 0 <= ms < 1e12
    if not fits:
        raise TastemakerError("expected `ms` as a number of milliseconds")
    version = body.get("guideline")
    if version is not None and not (type(version) is int and 1 <= version < 2**31):
        raise TastemakerError("expected `guideline` as a number")
    return Sent(body.get("client_token", ""), None if ms is None else int(ms), str(body.get("client", "")), version)
