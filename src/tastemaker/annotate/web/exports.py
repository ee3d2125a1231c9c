"""Everything that was said, as files: for admins only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from ...errors import UnknownName
from .. import store
from .state import State, state_of


def _records(read: Callable[..., Iterable[Any]]) -> Callable[[Session, int], Iterator[dict[str, Any]]]:
    return lambda session, project: (asdict(r) for r in read(session, project, every=True))


ROWS: dict[str, Callable[[Session, int], Iterator[dict[str, Any]]]] = {
    "votes": _records(store.votes),
    "ratings": _records(store.ratings),
    "rankings": _records(store.rankings),
    "events": lambda session, project: store.raw_events(session, project),
}
TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv", "zip": "application/zip"}


pages = APIRouter()


@pages.get("/admin/projects/{project}/export/{name}")
async def export(request: Request, project: int, name: str) -> Response:
    state = state_of(request)
    state.person(request, "admin")
    what, _, kind = name.rpartition(".")
    content = await run_sync(_content, state, project, what, kind)
    headers = {"content-disposition": f'attachment; filename="{what}-{project}.{kind}"'}
    return Response(content, media_type=TYPES[kind], headers=headers)


def _content(state: State, project: int, what: str, kind: str) -> bytes:
    if kind == "zip" and what in state.exporters:
        return state.exporters[what](state.database, project)
    if what not in ROWS or kind not in ("jsonl", "csv"):
        raise UnknownName("export", f"{what}.{kind}", [f"{w}.{k}" for w in ROWS for k in ("jsonl", "csv")])
    with state.database.reading() as session:
        return (as_jsonl if kind == "jsonl" else as_csv)(ROWS[what](session, project))


def as_jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: Iterable[dict[str, Any]]) -> bytes:
    """Columns as in the records; what is not plain is JSON in its cell. Text that a spreadsheet would run as a
    formula is written with a ' before it."""
    out = io.StringIO()
    writer: Any = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(out, list(row))
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
