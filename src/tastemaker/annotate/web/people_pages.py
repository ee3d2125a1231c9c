"""The admin's pages of people: accounts, roles, and how a person stands in a project."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...errors import TastemakerError
from .. import people
from ..projects import load_project, set_quota
from ..submit import retest
from .state import state_of

pages = APIRouter()


@pages.post("/admin/people")
async def create(request: Request) -> Response:
    state, password = state_of(request), people.new_password()
    person, fields = await state.form(request, "admin")
    login, role = str(fields.get("login", "")).strip(), str(fields.get("role", ""))
    await state.write(lambda db: people.create_person(db, login, password, role, by=person.id))
    said = f"{login} can log in with this password, which is shown only now: {password}"
    return state.page("message.html", person, title="Account made", message=said)


@pages.post("/admin/people/{key}")
async def change(request: Request, key: int) -> Response:
    state = state_of(request)
    person, fields = await state.form(request, "admin")
    what, password = str(fields.get("what", "")), people.new_password()
    jobs = {
        "role": lambda db: people.set_role(db, key, str(fields.get("role", "")), by=person.id),
        "password": lambda db: people.set_password(db, key, password, by=person.id),
        "erase": lambda db: people.erase(db, key, by=person.id),
    }
    if what not in jobs:
        raise TastemakerError(f"expected what to do: {', '.join(jobs)}")
    await state.write(jobs[what])
    state.forget()
    if what == "password":
        said = f"The new password, which is shown only now: {password}"
        return state.page("message.html", person, title="Password set", message=said)
    return RedirectResponse("/admin", 303)


@pages.post("/admin/projects/{project}/people/{key}")
async def member(request: Request, project: int, key: int) -> Response:
    state = state_of(request)
    person, fields = await state.form(request, "admin")
    what, quota = str(fields.get("what", "")), str(fields.get("quota", "")).strip()
    if what not in ("retest", "quota") or not (quota == "" or quota.isdecimal()):
        raise TastemakerError("expected `retest`, or a quota that is a whole number or nothing")

    def job(db: Any) -> None:
        view = load_project(db, project)
        if what == "retest":
            retest(db, view, key, by=person.id)
        else:
            set_quota(db, view, key, int(quota) if quota else None, by=person.id)

    await state.write(job)
    return RedirectResponse(f"/admin/projects/{project}", 303)
