"""The server: pages and their errors put together. `create_app` is all that others need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ...errors import TastemakerError
from ..database import Database
from ..log import APP
from ..submit import Conflict, NotYours
from . import account, admin, exports, reviewing, statistics_page, work
from .security import Shield, TooLong
from .state import ROOM, Exporter, Forbidden, NoSession, State

STATUS = {NotYours: 404, Conflict: 409, Forbidden: 403}


def create_app(database: Database, secure: bool = False, exporters: Mapping[str, Exporter] | None = None) -> FastAPI:
    """The annotation server on an open database.

    secure: cookies go over HTTPS only. exporters: name -> function of (database, project id) that gives the bytes of
    a zip file; each becomes a link on the project's page.
    """
    state = State(database, secure, exporters)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(state.sweep())
        yield
        sweeper.cancel()
        state.writer.stop()

    app = FastAPI(title="tastemaker", version=APP, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.tastemaker = state
    for room in (work, account, reviewing, admin, exports, statistics_page):
        app.include_router(room.router(state))
    app.mount("/static", StaticFiles(directory=ROOM / "static"), name="static")
    app.add_middleware(Shield)
    _errors(app, state)
    return app


def _errors(app: FastAPI, state: State) -> None:
    @app.exception_handler(NoSession)
    async def log_in(request: Request, _error: Exception) -> Response:
        if _wants_json(request):
            return JSONResponse({"error": "please log in again"}, 401)
        if request.method != "GET":
            return RedirectResponse("/login", 303)
        return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)

    @app.exception_handler(TastemakerError)
    async def explain(request: Request, error: Exception) -> Response:
        status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), 422)
        return _said(state, request, str(error), status)

    @app.exception_handler(404)
    async def missing(request: Request, _error: Any) -> Response:
        return _said(state, request, "There is no such page.", 404)

    @app.exception_handler(SQLAlchemyError)
    async def trouble(request: Request, _error: Exception) -> Response:
        return _said(state, request, "The database does not answer. Nothing was lost; please try again.", 503)

    @app.exception_handler(TooLong)
    async def too_long(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("expected less", 413)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/pictures/"))


def _said(state: State, request: Request, sentence: str, status: int) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": sentence}, status)
    try:
        person = state.person(request)
    except (NoSession, TastemakerError):
        person = None
    return state.page("message.html", person, status, title="That did not work", message=sentence)
