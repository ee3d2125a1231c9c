"""The admin's pages of projects and their items; people are in `people_pages.py`."""

from __future__ import annotations

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from .. import figures, people
from ..audit import audit
from ..imports import items_of_upload
from ..presets import KINDS, preset_settings
from ..projects import all_projects, change_project, create_project, guideline_text, load_project, set_guideline
from ..store import add_items
from .state import State, state_of

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

pages = APIRouter()


@pages.get("/admin")
def overview(request: Request) -> Response:
    state = state_of(request)
    person = state.person(request, "admin")
    with state.database.reading() as session:
        found = [(p, figures.progress(session, p.id)) for p in all_projects(session)]
        everybody = people.everybody(session)
    return state.page(
        "admin.html", person, projects=found, people=everybody, roles=people.ROLES, presets=KINDS, made=None
    )


@pages.post("/admin/projects")
async def create(request: Request) -> Response:
    state = state_of(request)
    person, fields = await state.form(request, "admin")
    settings = preset_settings(str(fields.get("preset", "")))
    name = str(fields.get("name", ""))
    key = await state.write(lambda db: create_project(db, name, settings, by=person.id))
    return RedirectResponse(f"/admin/projects/{key}", 303)


@pages.get("/admin/projects/{project}")
def project_page(request: Request, project: int) -> Response:
    state = state_of(request)
    person = state.person(request, "admin")
    with state.database.reading() as session:
        view = load_project(session, project)
        values: dict[str, Any] = {
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
    state = state_of(request)
    person, fields = await state.form(request, "admin")
    settings = {name: str(fields[name]) for name, _ in FIELDS if name in fields}
    closed = "closed" in fields
    await state.write(lambda db: change_project(db, project, closed, by=person.id, **settings))
    state.forget()
    return RedirectResponse(f"/admin/projects/{project}", 303)


@pages.post("/admin/projects/{project}/guideline")
async def new_guideline(request: Request, project: int) -> Response:
    state = state_of(request)
    person, fields = await state.form(request, "admin")
    text = str(fields.get("text", ""))
    await state.write(lambda db: set_guideline(db, project, text, by=person.id))
    state.forget()
    return RedirectResponse(f"/admin/projects/{project}", 303)


@pages.post("/admin/projects/{project}/import")
async def upload(request: Request, project: int) -> Response:
    state = state_of(request)
    person, fields = await state.form(request, "admin")
    sent = [f for f in fields.getlist("files") if hasattr(f, "filename") and f.filename]
    files = {f.filename: await f.read() for f in sent}
    items = await run_sync(_items, state, project, files)  # decoding pictures takes long: outside the writer
    count = await state.write(lambda db: add_items(db, project, items, by=person.id))
    return state.page("message.html", person, title="Imported", message=f"{count} items were added.")


def _items(state: State, project: int, files: dict[str, bytes]) -> list[Any]:
    with state.database.reading() as session:
        return items_of_upload(load_project(session, project), files, state.pictures)


@pages.get("/admin/audit")
def check(request: Request) -> Response:
    state = state_of(request)
    person = state.person(request, "admin")
    with state.database.reading() as session:
        found = audit(session)
    said = "The log and the state agree." if not found else " ".join(f"{s}." for s in found[:20])
    return state.page("message.html", person, title="Check of the log", message=said)
