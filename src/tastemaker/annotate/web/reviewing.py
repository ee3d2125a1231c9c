"""The reviewer's pages."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..leases import view as task_view
from ..projects import load_project
from ..review import decide, queue, shown_answer
from .answering import json_body
from .state import state_of
from .work import words_of

pages = APIRouter()


@pages.get("/review/{project}")
def review(request: Request, project: int) -> Response:
    state = state_of(request)
    person = state.person(request, "reviewer")
    with state.database.reading() as session:
        view = load_project(session, project)
    return state.page("review.html", person, project=view, words=words_of(view))


@pages.post("/api/review/{project}/queue")
async def waiting(request: Request, project: int) -> Response:
    state = state_of(request)
    person = state.caller(request, "reviewer")

    def look(db: Any) -> dict[str, Any]:
        rows = queue(db, project, person.id)
        return {"waiting": [_seen(db, row) for row in rows[:20]], "count": len(rows)}

    return JSONResponse(await state.write(look))


def _seen(db: Any, row: Any) -> dict[str, Any]:
    return {**task_view(row.token, row.shown, row), "answer": shown_answer(db, row), "by": row.pseudonym}


@pages.post("/api/review/{project}/decide")
async def verdict(request: Request, project: int) -> Response:
    state = state_of(request)
    person, body = state.caller(request, "reviewer"), await json_body(request)
    token, verdict = (str(body.get(name, "")) for name in ("token", "verdict"))

    def job(db: Any) -> None:
        reason = str(body.get("reason", ""))
        decide(db, state.project(db, project), person.id, token, verdict, body.get("answer"), reason)

    await state.write(job)
    return JSONResponse({"done": True})
