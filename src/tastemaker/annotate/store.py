"""Items in, answers out: what the rest of the package needs of the annotation app, without its pages.

Votes, ratings and rankings come out as plain records. Each carries in `about` what is known of how it was given:
`event`, `at`, `ms`, `shown` (shown[k]: which picture stood at place k), `guideline`, `app`, `kind` (work, test, gold,
repeat, relabel), `counted`, `late`, `project`, and `violations` where the ranking contradicts the marks. Answers that
were taken back are left out; answers that are kept without being counted (late, rejected, repeats, tests) come with
`every=True`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from ..errors import TastemakerError
from ..records import Ranking, Rating, Vote
from .answers import checked_gold
from .database import Annotator, Assignment, Database, Event, Item, get_setting, open_database, put_setting
from .log import record
from .pictures import remember, store_of
from .presets import SCALES
from .projects import View, load_project

A, I, E = Assignment.__table__, Item.__table__, Event.__table__  # noqa: E741
COUNTED_KINDS = ("work", "relabel")


@dataclass(frozen=True)
class NewItem:
    """Pictures of one prompt to be compared.

    images: files, or their content. prompt_id: the prompt's own text if empty. hidden: for each picture what is known
    of it (model, seed, file); it is kept for the export and never shown. gold: the right answer of a test item, see
    `answers.py`; testing: it belongs to the test before the work, else it is mixed into the work. priority: higher
    comes first. wanted: how many people answer; the project's overlap if 0.
    """

    prompt: str
    images: Sequence[str | Path | bytes]
    prompt_id: str = ""
    hidden: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    gold: Mapping[str, Any] | None = None
    testing: bool = False
    sensitive: bool = False
    priority: float = 0.0
    wanted: int = 0
    where: str = "item"  # names it in errors


def open_store(where: str | Path, pictures: str | Path | None = None) -> Database:
    """Open a database and tell it, once, where its pictures lie: beside a SQLite file, or in the folder given."""
    database = open_database(where)
    with database.session() as session:
        known = get_setting(session, "pictures")
        if known is None:
            beside = None if "://" in str(where) else Path(str(where) + ".pictures")
            folder = pictures or beside or Path("annotation-pictures")
            put_setting(session, "pictures", str(Path(folder).expanduser().resolve()))
        elif pictures is not None and Path(known) != Path(pictures).expanduser().resolve():
            raise TastemakerError(f"the pictures of this database lie in {known}, not in {pictures}")
    return database


def add_items(session: Session | Connection, project: int, items: Iterable[NewItem], by: int | None = None) -> int:
    """Add items to a project; returns how many. Raises TastemakerError naming the item that does not fit; the
    caller's transaction then ends without any of them."""
    view, store, rng, count = load_project(session, project), store_of(session), random.SystemRandom(), 0
    for count, item in enumerate(items, 1):  # noqa: B007
        check_item(view, item)
        kept = [store.add(*_content(image, item.where)) for image in item.images]
        for picture in kept:
            remember(session, picture)
        session.execute(I.insert(), _item_row(view, item, [k.sha256 for k in kept], rng.random()))
    record(session, "import", project_id=project, annotator_id=by, about={"items": count})
    return count


def check_item(project: View, item: NewItem) -> None:
    """Raises TastemakerError where the item does not fit the project."""
    settings, count = project.settings, len(item.images)
    if not item.prompt.strip():
        raise TastemakerError(f"{item.where} column `prompt`: expected words, got nothing")
    least, most = 2 if settings.preset != "imagereward" else 1, settings.most_pictures
    if not least <= count <= most:
        raise TastemakerError(f"{item.where} column `images`: expected {least} to {most} pictures, got {count}")
    if item.hidden and len(item.hidden) != count:
        raise TastemakerError(f"{item.where}: expected {count} entries in `hidden`, got {len(item.hidden)}")
    if item.gold is not None:
        try:
            checked_gold(settings, count, item.gold)
        except TastemakerError as error:
            raise TastemakerError(f"{item.where} column `gold`: {error}") from error


def _content(image: str | Path | bytes, where: str) -> tuple[bytes, str]:
    if isinstance(image, bytes):
        return image, where
    try:
        return Path(image).read_bytes(), f"{where} picture {Path(image).name}"
    except OSError as error:
        raise TastemakerError(f"{where} column `images`: cannot read {image}: {error.strerror}") from error


def _item_row(project: View, item: NewItem, pictures: list[str], shuffle: float) -> dict[str, Any]:
    return {
        "project_id": project.id,
        "prompt_id": item.prompt_id or item.prompt,
        "prompt": item.prompt.strip(),
        "pictures": pictures,
        "hidden": [dict(h) for h in item.hidden] or [{} for _ in pictures],
        "about": dict(item.about),
        "gold": None if item.gold is None else checked_gold(project.settings, len(pictures), item.gold),
        "testing": item.gold is not None and item.testing,
        "sensitive": item.sensitive,
        "wanted": 0 if item.gold is not None else item.wanted or project.settings.overlap,
        "taken": 0,
        "open": item.gold is None,
        "priority": item.priority,
        "shuffle": shuffle,
        "created_at": time.time(),
    }


def answers(session: Session, project: int | None = None, every: bool = False) -> Iterator[Row]:
    """The current answer of each assignment, with its item and person, in the order in which they were given.

    Every row has the columns of the event, and `prompt_id`, `prompt`, `pictures`, `hidden`, `item_about`,
    `pseudonym`, `assigned` (the kind of assignment), `state`, `counted`.
    """
    query = (
        select(
            E,
            I.c.prompt_id,
            I.c.prompt,
            I.c.pictures,
            I.c.hidden,
            I.c.about.label("item_about"),
            Annotator.pseudonym,
            A.c.kind.label("assigned"),
            A.c.state,
            (A.c.kind.in_(COUNTED_KINDS) & A.c.state.in_(("answered", "skipped"))).label("counted"),
        )
        .join(A, E.c.assignment_id == A.c.id)
        .join(I, A.c.item_id == I.c.id)
        .join(Annotator, A.c.annotator_id == Annotator.id)
        .where(E.c.kind.in_(("answer", "relabel", "skip")), E.c.id.in_(_last_answers()))
        .where(A.c.state.in_(("answered", "late", "rejected", "skipped")))
        .order_by(E.c.id)
    )
    if project is not None:
        query = query.where(A.c.project_id == project)
    if not every:
        query = query.where(A.c.kind.in_(COUNTED_KINDS), A.c.state.in_(("answered", "skipped")))
    yield from session.execute(query)


def _last_answers() -> Any:
    given = E.c.kind.in_(("answer", "relabel", "skip"))
    return select(func.max(E.c.id)).where(given).group_by(E.c.assignment_id)


def votes(session: Session, project: int | None = None, every: bool = False) -> list[Vote]:
    """Every current answer to a pair; image_a is the item's first picture, wherever it was shown."""
    return _votes(answers(session, project, every))


def ratings(session: Session, project: int | None = None, every: bool = False) -> list[Rating]:
    """Every current mark; `about` also has the picture's `problems` and the prompt's `category`."""
    return _ratings(answers(session, project, every))


def rankings(session: Session, project: int | None = None, every: bool = False) -> list[Ranking]:
    """Every current order of pictures."""
    return _rankings(answers(session, project, every))


def everything(
    session: Session, project: int | None = None, every: bool = False
) -> tuple[list[Vote], list[Rating], list[Ranking]]:
    """Votes, ratings and rankings by one look at the database."""
    rows = list(answers(session, project, every))
    return _votes(rows), _ratings(rows), _rankings(rows)


def _votes(rows: Iterable[Row]) -> list[Vote]:
    return [
        Vote(r.prompt_id, r.prompt, r.pictures[0], r.pictures[1], r.answer["choice"], r.pseudonym, about_of(r))
        for r in rows
        if len(r.pictures) == 2 and "choice" in r.answer
    ]


def _ratings(rows: Iterable[Row]) -> list[Rating]:
    return [
        Rating(r.prompt_id, r.prompt, image, scale, float(marks[scale]), r.pseudonym, about_of(r) | extra)
        for r in rows
        for image, marks in zip(r.pictures, r.answer.get("ratings", ()))
        for extra in [{"problems": marks["problems"], "stage": r.answer["prompt"]}]
        for scale, *_ in SCALES
    ]


def _rankings(rows: Iterable[Row]) -> list[Ranking]:
    return [
        Ranking(r.prompt_id, r.prompt, tuple(r.pictures), tuple(r.answer["slots"]), r.pseudonym, about_of(r))
        for r in rows
        if "slots" in r.answer
    ]


def about_of(row: Row) -> dict[str, Any]:
    """How an answer was given; plain values."""
    known = {
        "event": row.id,
        "at": row.at,
        "ms": row.ms,
        "shown": row.shown,
        "guideline": row.guideline,
        "app": row.app,
        "client": row.client,
        "kind": row.assigned,
        "counted": bool(row.counted),
        "late": bool(row.late),
        "project": row.project_id,
        "item": row.item_id,
        "hidden": row.hidden if any(row.hidden) else None,
        "reason": row.answer.get("reason"),
        "harmful": row.answer.get("harmful"),
        "violations": (row.about or {}).get("violations"),
        "right": (row.about or {}).get("right"),
    }
    return {**row.item_about, **{k: v for k, v in known.items() if v is not None}}


def raw_events(session: Session, project: int | None = None) -> Iterator[dict[str, Any]]:
    """The whole log, oldest first; people under their present pseudonyms."""
    columns = [c for c in E.c if c.name not in ("annotator_id", "client_token")]
    query = select(*columns, Annotator.pseudonym.label("annotator")).outerjoin(
        Annotator, E.c.annotator_id == Annotator.id
    )
    if project is not None:
        query = query.where(E.c.project_id == project)
    for row in session.execute(query.order_by(E.c.id)):
        yield dict(row._mapping)
