"""The annotator's page and the requests that it sends; answers are in `answering.py`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from sqlalchemy import bindparam, func, select
from sqlalchemy.engine import Connection, Row
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...errors import TastemakerError
from ...page_server import json_body
from ..database import Assignment, Item
from ..leases import hold
from ..presets import CATEGORIES, MARKS, PICTURE_PROBLEMS, PROMPT_PROBLEMS, SCALES, SKIP_REASONS
from ..projects import View, consent, guideline_text, membership
from ..submit import NotYours, find_task, keep_part, undo
from .answering import progress, sent_of
from .state import Person, State, state_of

AHEAD = 2  # tasks that a page holds: one to answer, one whose pictures load meanwhile
A, I = Assignment.__table__, Item.__table__  # noqa: E741

pages = APIRouter()


@pages.get("/work/{project}")
async def work(request: Request, project: int) -> Response:
    state = state_of(request)
    person = state.person(request)
    view, member, text = await state.write(lambda db: _begin(state, db, person, project))
    if member.consented_at is None:
        return state.page("consent.html", person, project=view, guideline=text)
    return state.page("work.html", person, project=view, words=words_of(view))


def _begin(state: State, db: Connection, person: Person, project: int) -> tuple[View, Row, str | None]:
    view = state.project(db, project)
    return view, membership(db, view, person.id), guideline_text(db, project, view.guideline)


@pages.post("/work/{project}")
async def agree(request: Request, project: int) -> Response:
    state = state_of(request)
    person, _ = await state.form(request)
    await state.write(lambda db: consent(db, state.project(db, project), person.id))
    return RedirectResponse(f"/work/{project}", 303)


@pages.get("/guideline/{project}")
def guideline(request: Request, project: int, version: int | None = None) -> Response:
    state = state_of(request)
    person = state.person(request)
    with state.database.reading() as session:
        view = state.project(session, project)
        text = guideline_text(session, project, version or view.guideline)
    if text is None:
        raise TastemakerError("there is no such version of the guideline")
    return state.page("guideline.html", person, project=view, version=version or view.guideline, guideline=text)


@pages.post("/api/projects/{project}/hold")
async def take(request: Request, project: int) -> Response:
    state = state_of(request)
    person = state.caller(request)
    return JSONResponse(await state.write(lambda db: _hold(state, db, person, project)))


_LEFT = select(func.count()).where(I.c.project_id == bindparam("project"), I.c.open)


def _hold(state: State, db: Connection, person: Person, project: int) -> dict[str, Any]:
    view = state.project(db, project)
    tasks = hold(db, view, person.id, AHEAD, state.rng)
    left = db.execute(_LEFT, {"project": project}).scalar()
    return {"tasks": tasks, "progress": progress(view, membership(db, view, person.id)), "left": left}


@pages.post("/api/tasks/{token}/part")
async def part(request: Request, token: str) -> Response:
    state = state_of(request)
    person, body = state.caller(request), await json_body(request)

    def job(db: Connection) -> Any:
        task = find_task(db, token, person.id)
        return keep_part(db, state.project(db, task.project_id), task, body.get("part"), sent_of(body))

    return JSONResponse(await state.write(job))


@pages.post("/api/projects/{project}/undo")
async def take_back(request: Request, project: int) -> Response:
    state = state_of(request)
    person, body = state.caller(request), await json_body(request)

    def job(db: Connection) -> Any:
        view = state.project(db, project)
        task = undo(db, view, person.id, sent_of(body))
        return {"task": task, "progress": progress(view, membership(db, view, person.id))}

    return JSONResponse(await state.write(job))


@pages.get("/pictures/{token}/{place}")
def picture(request: Request, token: str, place: int) -> Response:
    state = state_of(request)
    person = state.person(request)
    with state.database.reading() as session:
        sha = _picture(session, person, token, place)
    content = state.pictures.shown(sha).read_bytes()
    return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


def _picture(db: Any, person: Person, token: str, place: int) -> str:
    """The sha256 of what stands at a place of a task. Raises NotYours for tasks of others, but for reviewers."""
    query = select(A.c.annotator_id, A.c.shown, I.c.pictures).join(I, A.c.item_id == I.c.id).where(A.c.token == token)
    row = db.execute(query).first()
    allowed = row is not None and (row.annotator_id == person.id or person.is_at_least("reviewer"))
    if not allowed or not 0 <= place < len(row.shown):
        raise NotYours("there is no such picture")
    return row.pictures[row.shown[place]]


def words_of(project: View) -> dict[str, Any]:
    """What the page's script needs to know of the project; plain values."""
    named = {
        "categories": CATEGORIES,
        "prompt_problems": PROMPT_PROBLEMS,
        "picture_problems": PICTURE_PROBLEMS,
        "skip_reasons": SKIP_REASONS,
    }
    known = ("preset", "question", "slots", "per_slot", "consistency")
    settings = asdict(project.settings)
    scales: list[dict[str, Any]] = [
        {"name": name, "label": label, "anchors": {**anchors}} for name, label, anchors in SCALES
    ]
    marks = [MARKS[0], MARKS[-1]]
    return (
        {k: settings[k] for k in known}
        | {"project": project.id, "guideline": project.guideline, "scales": scales, "marks": marks}
        | named
    )
