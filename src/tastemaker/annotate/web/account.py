"""Log in, log out, change one's password, choose a project."""

from __future__ import annotations

import math
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from .. import people
from ..projects import all_projects, membership
from .security import COOKIE
from .state import Person, State

AT_ONCE = 2  # passwords verified at a time: each takes 19 MiB and a core


def router(state: State) -> APIRouter:
    pages, verifying = APIRouter(), anyio.CapacityLimiter(AT_ONCE)

    @pages.get("/health")
    async def health() -> Response:
        return PlainTextResponse("well")

    @pages.get("/")
    def start(request: Request) -> Response:
        return RedirectResponse("/projects" if state.person(request) else "/login", 303)

    @pages.get("/login")
    async def form(request: Request, next: str = "/") -> Response:
        return _login_page(state, request, next)

    @pages.post("/login")
    async def log_in(request: Request) -> Response:
        fields = await request.form(max_files=0, max_fields=10)
        login, password = str(fields.get("login", ""))[:64], str(fields.get("password", ""))[: people.MOST_PASSWORD]
        follow = str(fields.get("next", "/"))
        if not state.sessions.form_fits(state.sessions.read(request), fields.get("form_token")):
            return _login_page(state, request, follow, "The page was out of date. Please try again.", 403)
        address = request.client.host if request.client else ""
        wait = state.limit.wait(address, login)
        if wait > 0:
            said = f"Too many tries. Please wait {math.ceil(wait / 60)} minutes."
            answer = _login_page(state, request, follow, said, 429)
            answer.headers["retry-after"] = str(math.ceil(wait))
            return answer
        state.limit.failed(address, login)  # until it is known to be right: tries at the same moment count too
        row = await run_sync(_find, state, login)
        if not await run_sync(people.password_fits, row.password if row else None, password, limiter=verifying):
            return _login_page(state, request, follow, "Name or password is wrong.", 401)
        state.limit.succeeded(address, login)
        answer = RedirectResponse(follow if _is_here(follow) else "/", 303)
        state.sessions.open(answer, row.id, row.epoch)
        return answer

    @pages.post("/logout")
    async def log_out(request: Request) -> Response:
        await state.form(request)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    @pages.get("/projects")
    def projects(request: Request) -> Response:
        person = state.person(request)
        with state.database.reading() as session:
            found = [p for p in all_projects(session) if not p.closed or person.is_at_least("reviewer")]
        if len(found) == 1 and person.role == "annotator":
            return RedirectResponse(f"/work/{found[0].id}", 303)
        return state.page("projects.html", person, projects=found)

    @pages.get("/password")
    def password_form(request: Request) -> Response:
        return state.page("password.html", state.person(request), said="")

    @pages.post("/password")
    async def change_password(request: Request) -> Response:
        person, fields = await state.form(request)
        row = await run_sync(_find, state, person.login)
        old, new = str(fields.get("old", "")), str(fields.get("new", ""))
        address = request.client.host if request.client else ""
        if state.limit.wait(address, person.login) > 0:
            return state.page("password.html", person, 429, said="Too many tries. Please wait some minutes.")
        if not await run_sync(people.password_fits, row.password, old, limiter=verifying):
            state.limit.failed(address, person.login)
            return state.page("password.html", person, 401, said="The old password is wrong.")
        await state.write(lambda db: people.set_password(db, person.id, new, by=person.id))
        state.forget()
        answer = RedirectResponse("/", 303)
        state.sessions.open(answer, person.id, row.epoch + 1)
        return answer

    @pages.get("/mine/{project}")
    async def mine(request: Request, project: int) -> Response:
        person = state.person(request)
        return state.page(
            "mine.html", person, **await state.write(lambda db: _own_figures(state, db, person, project))
        )

    return pages


def _find(state: State, login: str) -> Any:
    with state.database.reading() as session:
        return people.find(session, login)


def _is_here(path: str) -> bool:
    """A path of this server: not another host's, also not by //host or /\\host."""
    return path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path


def _login_page(state: State, request: Request, follow: str, said: str = "", status: int = 200) -> Response:
    """With a session of nobody, whose token protects the form."""
    answer = Response()
    ticket = state.sessions.open(answer, 0, 0)
    nobody = Person(0, "", "", "annotator", ticket)
    page = state.page("login.html", nobody, status, said=said, next=follow if _is_here(follow) else "/")
    page.headers["set-cookie"] = answer.headers["set-cookie"]
    return page


def _own_figures(state: State, db: Any, person: Person, project: int) -> dict[str, Any]:
    """What a person may know of their own work: counts, and how fast; nothing of hidden tests."""
    from ..figures import pace

    view = state.project(db, project)
    member = membership(db, view, person.id)
    return {"project": view, "member": member, "pace": pace(db, project, person.id)}
