"""The studio's server: one page, two requests that draw, and the pictures. `create_app` is all that others need."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from ..errors import TastemakerError
from ..page_server import STYLE, Shield, TooLong, json_body, listen
from .asked import Drawn, Engine, Look, Setting, Stopped, Superseded, Sweep, command, read
from .worker import Worker

STATIC = Path(__file__).parent / "static"
LOOKS, PICTURES = 64, 1024  # remembered; a look has at most 16 pictures
T = TypeVar("T")
pages = APIRouter()


class Remembered(Generic[T]):
    """The last `most` values by key."""

    def __init__(self, most: int):
        self.most, self._kept = most, OrderedDict[str, T]()

    def get(self, key: str) -> T | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: str, value: T) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)


class Desk:
    """One per server."""

    def __init__(self, engine: Engine):
        self.engine, self.worker = engine, Worker()
        self.looks, self.pictures = Remembered[Look](LOOKS), Remembered[bytes](PICTURES)

    async def look(self, request: Request, page: Any, key: str, job: Callable[[Stopped], Look]) -> Look:
        """From memory, where the same was asked before, else drawn."""
        if not isinstance(page, str) or not 0 < len(page) <= 64:
            raise TastemakerError("expected `page`, a name of 1 to 64 characters")
        known = self.looks.get(key)
        if known is None:
            known = await self.worker.run(page, job, request.is_disconnected)
            self.looks.put(key, known)
        return known

    def told(self, look: Look) -> dict[str, Any]:
        """For the page; the pictures can be had from now on."""
        return {
            "pictures": [self._picture(drawn) for drawn in look.pictures],
            "seconds": round(look.seconds, 3),
            "notes": look.notes,
        }

    def _picture(self, drawn: Drawn) -> dict[str, Any]:
        name = hashlib.sha256(drawn.png).hexdigest()[:32]
        self.pictures.put(name, drawn.png)
        said = {"seed": drawn.seed, "levels": drawn.levels, "scores": drawn.scores, "reached": drawn.reached}
        return {"url": f"/pictures/{name}.png", **said}


def create_app(engine: Engine) -> FastAPI:
    """The studio on something that draws."""
    desk = Desk(engine)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.worker.stop()

    app = FastAPI(title="tastemaker studio", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.desk = desk
    app.include_router(pages)
    app.mount("/pages", StaticFiles(directory=STYLE), name="pages")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Shield)
    for kind, status in ((TastemakerError, 422), (Superseded, 409), (TooLong, 413)):
        app.add_exception_handler(kind, partial(_explain, status))
    return app


async def _explain(status: int, _request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error) or "a newer request came"}, status)


def serve(engine: Engine, host: str = "127.0.0.1", port: int = 8001) -> None:
    """Serve until interrupted. Raises TastemakerError where the port is taken or the host is not this machine."""
    place = listen(host, port)
    settings = uvicorn.Config(create_app(engine), log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(settings).run(sockets=[place])


@pages.get("/")
def page() -> Response:
    return FileResponse(STATIC / "studio.html")


@pages.get("/health")
def health() -> Response:
    return PlainTextResponse("well")


@pages.get("/api/model")
def model(request: Request) -> Response:
    return JSONResponse(request.app.state.desk.engine.about())


@pages.post("/api/draw")
async def draw(request: Request) -> Response:
    desk, body = request.app.state.desk, await json_body(request)
    setting = read(Setting, body.get("setting"))
    job = partial(desk.engine.draw, setting)
    said = desk.told(await desk.look(request, body.get("page"), setting.model_dump_json(), job))
    return JSONResponse({**said, "command": command(desk.engine.name, setting)})


@pages.post("/api/sweep")
async def sweep(request: Request) -> Response:
    desk, body = request.app.state.desk, await json_body(request)
    setting, wanted = read(Setting, body.get("setting")), read(Sweep, body.get("sweep"))
    key = setting.model_dump_json() + wanted.model_dump_json()
    job = partial(desk.engine.sweep, setting, wanted)
    return JSONResponse(desk.told(await desk.look(request, body.get("page"), key, job)))


@pages.get("/pictures/{name}.png")
def picture(request: Request, name: str) -> Response:
    png = request.app.state.desk.pictures.get(name)
    if png is None:
        return JSONResponse({"error": "this picture is no longer remembered; draw it again"}, 404)
    return Response(png, media_type="image/png", headers={"cache-control": "private, max-age=3600"})
