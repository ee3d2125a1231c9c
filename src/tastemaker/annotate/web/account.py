"""Log in, log out, change one's password, choose a project."""

from __future__ import annotations

import math
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from .. import people
from ..figures import pace
from ..projects import all_projects, membership
from .security import COOKIE
from .state import Person, State, state_of

pages = APIRouter()


@pages.get("/health")
async def health() -> Response:
    return PlainTextResponse("well")


@pages.get("/")
def start(request: Request) -> Response:
    state_of(request).person(request)
    return RedirectResponse("/projects", 303)


@pages.get("/login")
async def login_form(request: Request, next: str = "/") -> Response:
    return _login_page(state_of(request), next)


@pages.post("/login")
async def log_in(request: Request) -> Response:
    state, fields = state_of(request), await request.form(max_files=0, max_fields=10)
    login, password = str(fields.get("login", ""))[:64], str(fields.get("password", ""))[: people.MOST_PASSWORD]
    follow, address = str(fields.get("next", "/")), _address(request)
    if not state.sessions.form_fits(state.sessions.read(request), fields.get("form_token")):
        return _login_page(state, follow, "The page was out of date. Please try again.", 403)
    wait = state.limit.wait(address, login)
    if wait > 0:
        return _too_many(state, follow, wait)
    state.limit.failed(address, login)  # until it is known to be right: tries at the same moment count too
    row = await run_sync(_find, state, login)
    if not await _fits(state, row.password if row else None, password):
        return _login_page(state, follow, "Name or password is wrong.", 401)
    state.limit.succeeded(address, login)
    answer = RedirectResponse(follow if _is_here(follow) else "/", 303)
    state.sessions.open(answer, row.id, row.epoch)
    return answer


def _too_many(state: State, follow: str, wait: float) -> Response:
    said = f"Too many tries. Please wait {math.ceil(wait / 60)} minutes."
    answer = _login_page(state, follow, said, 429)
    answer.headers["retry-after"] = str(math.ceil(wait))
    return answer


@pages.post("/logout")
async def log_out(request: Request) -> Response:
    await state_of(request).form(request)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@pages.get("/projects")
def projects(request: Request) -> Response:
    state = state_of(request)
    person = state.person(request)
    with state.database.reading() as session:
        found = [p for p in all_projects(session) if not p.closed or person.is_at_least("reviewer")]
    if len(found) == 1 and person.role == "annotator":
        return RedirectResponse(f"/work/{found[0].id}", 303)
    return state.page("projects.html", person, projects=found)


@pages.get("/password")
def password_form(request: Request) -> Response:
    state = state_of(request)
    return state.page("password.html", state.person(request), said="")


@pages.post("/password")
async def change_password(request: Request) -> Response:
    state, address = state_of(request), _address(request)
    person, fields = await state.form(request)
    row = await run_sync(_find, state, person.login)
    old, new = str(fields.get("old", "")), str(fields.get("new", ""))
    if state.limit.wait(address, person.login) > 0:
        return state.page("password.html", person, 429, said="Too many tries. Please wait some minutes.")
    if not await _fits(state, row.password, old):
        state.limit.failed(address, person.login)
        return state.page("password.html", person, 401, said="The old password is wrong.")
    await state.write(lambda db: people.set_password(db, person.id, new, by=person.id))
    state.forget()
    answer = RedirectResponse("/", 303)
    state.sessions.open(answer, person.id, row.epoch + 1)
    return answer


@pages.get("/mine/{project}")
async def mine(request: Request, project: int) -> Response:
    state = state_of(request)
    person = state.person(request)
    return state.page("mine.html", person, **await state.write(lambda db: _own_figures(state, db, person, project)))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _find(state: State, login: str) -> Any:
    with state.database.reading() as session:
        return people.find(session, login)


async def _fits(state: State, kept: str | None, password: str) -> bool:
    """Some at a time: each takes 19 MiB and a core."""
    return await run_sync(people.password_fits, kept, password, limiter=state.verifying)


def _is_here(path: str) -> bool:
    """A path of this server: not another host's, also not by //host or /\\host."""
    return path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path


def _login_page(state: State, follow: str, said: str = "", status: int = 200) -> Response:
    """With a session of nobody, whose token protects the form."""
    answer = Response()
    ticket = state.sessions.open(answer, 0, 0)
    nobody = Person(0, "", "", "annotator", ticket)
    page = state.page("login.html", nobody, status, said=said, next=follow if _is_here(follow) else "/")
    page.headers["set-cookie"] = answer.headers["set-cookie"]
    return page


def _own_figures(state: State, db: Any, person: Person, project: int) -> dict[str, Any]:
    """What a person may know of their own work: counts, and how fast; nothing of hidden tests."""
    view = state.project(db, project)
    member = membership(db, view, person.id)
    return {"project": view, "member": member, "pace": pace(db, project, person.id)}
