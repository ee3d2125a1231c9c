"""`tastemaker annotate`: where the annotation app meets pictures, formats and the embedded world."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..annotate import people, store
from ..annotate.audit import audit
from ..annotate.database import Annotator, Database, Picture
from ..annotate.figures import progress
from ..annotate.imports import first_columns, read_items
from ..annotate.pictures import store_of
from ..annotate.presets import preset_settings
from ..annotate.projects import View, all_projects, create_project, find_project
from ..annotate.statistics import summary
from ..annotate.store import NewItem
from ..data.votes import Votes, read_votes, write_votes
from ..errors import TastemakerError
from ..records import Ranking, Vote
from .drawn import LIST, questions

DATABASE = "annotations.db"
EXPORTS = ("jsonl", "parquet", "imagereward", "hpdv2")  # formats that the server offers as zip files
console = Console(stderr=True)


def serve_app(
    database: str = DATABASE,
    host: str = "127.0.0.1",
    port: int = 8000,
    admin_password: str | None = None,
    secure: bool = False,
    pictures: str | None = None,
    trusted_proxy: str | None = None,
    demo: bool = True,
) -> None:
    """Open the database, make what a new one needs (an admin, and a demo project if `demo`), and serve."""
    from ..annotate.serve import serve

    opened = store.open_store(database, pictures)
    made = first_admin(opened, admin_password)
    if demo and made is not None:
        add_demo(opened)
    place = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"
    console.print(f"database {database}; serving at {place}")
    if made is not None and admin_password is None:
        console.print(f"log in as 'admin' with the password [bold]{made}[/]; it is shown only now")
    serve(opened, host, port, secure, exporters(), trusted_proxy)


def first_admin(database: Database, password: str | None = None) -> str | None:
    """The password of the admin that was made, or None where there was somebody already."""
    with database.session() as session:
        if session.execute(select(func.count()).select_from(Annotator)).scalar():
            return None
        password = password or people.new_password()
        people.create_person(session, "admin", password, "admin")
        return password


def add_person(database: str, login: str, password: str | None = None, role: str = "annotator") -> str:
    """Make an account, or give an existing one a new password; returns the password."""
    opened, password = store.open_store(database), password or people.new_password()
    with opened.session() as session:
        known = people.find(session, login)
        if known is None:
            people.create_person(session, login, password, role)
        else:
            people.set_password(session, known.id, password)
            if known.role != role:
                people.set_role(session, known.id, role)
    return password


# the embedded default


def add_demo(database: Database, count: int = 40) -> None:
    """Three projects of pictures from the emoji world, one for each preset: a true picture of each prompt beside ones
    with a fact wrong or spoilt."""
    for preset, name, many, items in (
        ("pairs", "Demo: pairs", 2, count),
        ("ranking", "Demo: ranking", 4, count // 4),
        ("imagereward", "Demo: three steps", 4, count // 4),
    ):
        with database.session() as session:
            project = create_project(session, name, preset_settings(preset))
            store.add_items(session, project, demo_items(items, many))


def demo_items(count: int, pictures: int, size: int = 256, seed: int = 7) -> Iterator[NewItem]:
    """Prompts of the emoji world with `pictures` pictures each, drawn at `size` pixels."""
    from ..randomness import mix
    from ..world.grammar import prompt_of, spec_of

    for k in range(count):
        spec = spec_of(mix(seed, k))
        drawn = [_demo_picture(spec, mix(seed, k, j), j, size) for j in range(pictures)]
        images, hidden = zip(*drawn)
        yield NewItem(prompt_of(spec).text, images, f"demo-{seed}-{k}", [{"model": name} for name in hidden])


def _demo_picture(spec: Any, seed: int, place: int, size: int) -> tuple[bytes, str]:
    """(PNG, what was done to it): the first picture is true, the others have a fact wrong or are spoilt."""
    import numpy as np
    from PIL import Image

    from ..randomness import stream
    from ..world.degrade import KINDS
    from ..world.grammar import swapped
    from ..world.scenes import compose, draw

    rng, how = stream(seed, purpose="demo"), ("true", "swapped", "spoilt", "true")[place % 4]
    picture = draw(compose(swapped(spec, seed) if how == "swapped" else spec, seed), size)
    if how == "spoilt":
        picture = KINDS[int(rng.integers(len(KINDS)))](picture, rng)
    out = io.BytesIO()
    Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8)).save(out, "PNG")
    return out.getvalue(), how


# in and out


def import_file(path: Path, database: str, project: str, preset: str, format: str | None = None) -> int:
    """A table of items (see annotate/imports.py), a folder that `tastemaker sample` wrote (see drawn.py), or votes in
    a format that `read_votes` knows, whose pictures are then asked about again. The project is made where it is new.
    Returns how many items were added."""
    drawn = (path / LIST).is_file()
    items = questions(path, preset_settings(preset)) if drawn else list(_items_of(path, format))
    opened = store.open_store(database)
    with opened.session() as session:
        known = {p.name: p.id for p in all_projects(session)}
        key = known.get(project) or create_project(session, project, preset_settings(preset))
        return store.add_items(session, key, items)


def _items_of(path: Path, format: str | None) -> Iterator[NewItem]:
    if format is None and path.suffix.lower() in (".jsonl", ".json", ".csv") and not _holds_votes(path):
        yield from read_items(path)
        return
    votes = read_votes(path, format)
    seen = set()
    answers: list[Vote | Ranking] = [*votes.votes, *votes.rankings]
    for answer in answers:
        images = (answer.image_a, answer.image_b) if isinstance(answer, Vote) else answer.images
        if (answer.prompt_id, images) not in seen:
            seen.add((answer.prompt_id, images))
            files = [votes.picture(name) for name in images]
            yield NewItem(answer.prompt, files, answer.prompt_id, about={"imported": str(path.name)})


def _holds_votes(path: Path) -> bool:
    """Whether a table's rows are answers; rows of items have none of these columns."""
    return not {"choice", "ranking", "human_preference", "slots", "rank", "kind", "value"}.isdisjoint(
        first_columns(path)
    )


def votes_of(session: Session, project: int | None = None, every: bool = False) -> Votes:
    """Everything that was said, with the pictures, as the rest of the package reads it."""
    pictures, folder = {}, store_of(session)
    for row in session.execute(select(Picture.__table__)):
        pictures[row.sha256] = folder.original(row.sha256, row.suffix).relative_to(folder.folder)
    votes, ratings, rankings = store.everything(session, project, every)
    named = {i for v in votes for i in (v.image_a, v.image_b)} | {r.image for r in ratings}
    named |= {i for r in rankings for i in r.images}
    known = {name: path for name, path in pictures.items() if name in named}
    return Votes(tuple(votes), tuple(ratings), tuple(rankings), known, folder=folder.folder)


def export_votes(
    database: str, out: Path, format: str, project: str | None = None, every: bool = False
) -> list[Path]:
    """The answers in a format, the pictures, and the whole log (`events.jsonl`) beside them; the files written."""
    opened = store.open_store(database)
    with opened.reading() as session:
        key = None if project is None else find_project(session, project).id
        return _export(session, out, format, key, every)


def _export(session: Session, out: Path, format: str, project: int | None, every: bool) -> list[Path]:
    votes = votes_of(session, project, every)
    if not len(votes):
        raise TastemakerError("there is no answer to export yet")
    written = write_votes(votes, out, format)
    log = out / "events.jsonl"
    with log.open("w", encoding="utf-8") as file:
        for row in store.raw_events(session, project):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return [*written, log]


def exporters() -> dict[str, Any]:
    """format -> what the server calls for the zip of a project."""
    return {format: partial(_zip, format) for format in EXPORTS}


def _zip(format: str, database: Database, project: int) -> bytes:
    with tempfile.TemporaryDirectory() as name, database.reading() as session:
        folder = Path(name)
        _export(session, folder, format, project, every=False)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                file.write(path, path.relative_to(folder))
        return out.getvalue()


def statistics(database: str, project: str | None = None) -> dict[str, Any]:
    """For each project: how far it is, `statistics.summary`, and what is wrong with the log (nothing, as a rule)."""
    opened = store.open_store(database)
    with opened.reading() as session:
        found = [find_project(session, project)] if project else all_projects(session)
        return {"projects": {p.name: _figures(session, p) for p in found}, "audit": audit(session)}


def _figures(session: Session, project: View) -> dict[str, Any]:
    said = store.everything(session, project.id, every=True)
    return {"progress": progress(session, project.id), **summary(*said)}
