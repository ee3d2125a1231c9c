"""The admin's pages: projects, items, people."""

from __future__ import annotations

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...errors import TastemakerError
from .. import figures, people
from ..audit import audit
from ..imports import items_of_upload
from ..presets import KINDS, preset_settings
from ..projects import (
    all_projects,
    change_project,
    create_project,
    guideline_text,
    load_project,
    set_guideline,
    set_quota,
)
from ..store import add_items
from ..submit import retest
from .state import State

FIELDS = (  # the settings that the page offers, with their words
    ("question", "Question above the pictures"),
    ("overlap", "People who answer each item"),
    ("lease_seconds", "Seconds that an item waits for its person"),
    ("quota", "Answers a person may give (0: no limit)"),
    ("skip_limit", "Skips a person may use"),
    ("qualification", "Test items before the work (0: no test)"),
    ("threshold", "Share of the test that must be right"),
    ("gold_rate", "Share of hidden test items"),
    ("repeat_rate", "Share of items asked again in the opposite order"),
    ("review", "Share of answers that a reviewer sees"),
    ("consistency", "Ranking against marks: warn, block or off"),
    ("slots", "Slots of a ranking"),
    ("per_slot", "Pictures that may share a slot"),
)


def router(state: State) -> APIRouter:
    pages = APIRouter()
    _projects(pages, state)
    _people(pages, state)
    return pages


def _projects(pages: APIRouter, state: State) -> None:
    @pages.get("/admin")
    def overview(request: Request) -> Response:
        person = state.person(request, "admin")
        with state.database.reading() as session:
            found = [(p, figures.progress(session, p.id)) for p in all_projects(session)]
            everybody = people.everybody(session)
        return state.page(
            "admin.html", person, projects=found, people=everybody, roles=people.ROLES, presets=KINDS, made=None
        )

    @pages.post("/admin/projects")
    async def create(request: Request) -> Response:
        person, fields = await state.form(request, "admin")
        settings = preset_settings(str(fields.get("preset", "")))
        name = str(fields.get("name", ""))
        key = await state.write(lambda db: create_project(db, name, settings, by=person.id))
        return RedirectResponse(f"/admin/projects/{key}", 303)

    @pages.get("/admin/projects/{project}")
    def project_page(request: Request, project: int) -> Response:
        person = state.person(request, "admin")
        with state.database.reading() as session:
            view = load_project(session, project)
            values = {
                "project": view,
                "progress": figures.progress(session, project),
                "members": figures.people_of(session, project),
                "guideline": guideline_text(session, project, view.guideline),
                "fields": [(name, words, getattr(view.settings, name)) for name, words in FIELDS],
                "exporters": list(state.exporters),
            }
        return state.page("project.html", person, **values)

    @pages.post("/admin/projects/{project}/settings")
    async def change(request: Request, project: int) -> Response:
        person, fields = await state.form(request, "admin")
        settings = {name: str(fields[name]) for name, _ in FIELDS if name in fields}
        closed = "closed" in fields
        await state.write(lambda db: change_project(db, project, closed, by=person.id, **settings))
        state.forget()
        return RedirectResponse(f"/admin/projects/{project}", 303)

    @pages.post("/admin/projects/{project}/guideline")
    async def new_guideline(request: Request, project: int) -> Response:
        person, fields = await state.form(request, "admin")
        text = str(fields.get("text", ""))
        await state.write(lambda db: set_guideline(db, project, text, by=person.id))
        state.forget()
        return RedirectResponse(f"/admin/projects/{project}", 303)

    @pages.post("/admin/projects/{project}/import")
    async def upload(request: Request, project: int) -> Response:
        person, fields = await state.form(request, "admin")
        sent = [f for f in fields.getlist("files") if hasattr(f, "filename") and f.filename]
        files = {f.filename: await f.read() for f in sent}

        def read() -> Any:  # decoding pictures takes long: outside the writer
            with state.database.reading() as session:
                return items_of_upload(load_project(session, project), files, state.pictures)

        items = await run_sync(read)
        count = await state.write(lambda db: add_items(db, project, items, by=person.id))
        return state.page("message.html", person, title="Imported", message=f"{count} items were added.")

    @pages.get("/admin/audit")
    def check(request: Request) -> Response:
        person = state.person(request, "admin")
        with state.database.reading() as session:
            found = audit(session)
        said = "The log and the state agree." if not found else " ".join(f"{s}." for s in found[:20])
        return state.page("message.html", person, title="Check of the log", message=said)


def _people(pages: APIRouter, state: State) -> None:
    @pages.post("/admin/people")
    async def create(request: Request) -> Response:
        person, fields = await state.form(request, "admin")
        login, role, password = (
            str(fields.get("login", "")).strip(),
            str(fields.get("role", "")),
            people.new_password(),
        )
        await state.write(lambda db: people.create_person(db, login, password, role, by=person.id))
        said = f"{login} can log in with this password, which is shown only now: {password}"
        return state.page("message.html", person, title="Account made", message=said)

    @pages.post("/admin/people/{key}")
    async def change(request: Request, key: int) -> Response:
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
