"""The server: pages and their errors put together. `create_app` is all that others need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from ...page_server import STYLE, Shield
from ..database import Database
from ..log import APP
from . import account, admin, exports, people_pages, reviewing, statistics_page, work
from .answering import Answers
from .replies import KNOWN, reply_to, said
from .security import longest_body
from .state import ROOM, Exporter, State


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
    for room in (work, account, reviewing, admin, people_pages, exports, statistics_page):
        app.include_router(room.pages)
    app.mount("/pages", StaticFiles(directory=STYLE), name="pages")
    app.mount("/static", StaticFiles(directory=ROOM / "static"), name="static")
    app.add_middleware(Answers, state=state)
    app.add_middleware(Shield, longest=longest_body)  # the outermost
    _errors(app, state)
    return app


def _errors(app: FastAPI, state: State) -> None:
    async def explain(request: Request, error: Any) -> Response:
        return reply_to(state, request, error)

    async def missing(request: Request, _error: Any) -> Response:
        return said(state, request, "There is no such page.", 404)

    for kind in KNOWN:
        app.add_exception_handler(kind, explain)
    app.add_exception_handler(404, missing)
