"""The tables of the annotation app, and the way to a database: SQLite in a file by default, PostgreSQL by URL.

`event` is the truth: rows are only ever added (triggers refuse anything else), and every current answer follows from
it. `assignment`, `membership` and the counters of `item` are kept beside it in the same transaction, so that the next
task is found quickly; `audit.py` derives them again from the log and compares. Times are seconds since 1970, UTC.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ..errors import MissingExtra, TastemakerError

Big = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself for INTEGER only
PATIENCE = 0.2  # seconds that a checkpoint keeps writers out at most
GOLD = text("gold IS NOT NULL")
# the log of writes is brought into the file by `Database.checkpoint`; 32,000 pages are the end of its patience
PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "cache_size=-32000",
    "wal_autocheckpoint=32000",
)  # fmt: skip
Plain = dict[str, Any]


class Base(DeclarativeBase):
    __table__: ClassVar[Table]  # no view or join
    type_annotation_map = {float: Double(), Plain: JSON(none_as_null=True), list[Any]: JSON(none_as_null=True)}


class Setting(Base):
    """Facts about the installation: the secret of the sessions, where pictures lie."""

    __tablename__ = "setting"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Project(Base):
    __tablename__ = "project"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    settings: Mapped[Plain]  # presets.Settings
    guideline: Mapped[int]  # the current version
    closed: Mapped[bool]
    created_at: Mapped[float]


class Guideline(Base):
    __tablename__ = "guideline"
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    at: Mapped[float]


class Annotator(Base):
    """A person. Only `login` is personal; records carry the pseudonym. An erased person has neither."""

    __tablename__ = "annotator"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    login: Mapped[str | None] = mapped_column(unique=True)
    pseudonym: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str | None]  # argon2 hash; None cannot log in
    role: Mapped[str]
    epoch: Mapped[int]  # sessions of an older epoch are void
    created_at: Mapped[float]
    erased_at: Mapped[float | None]


class Membership(Base):
    """How one person stands in one project."""

    __tablename__ = "membership"
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotator.id"), primary_key=True)
    status: Mapped[str]  # testing, qualified, failed
    quota: Mapped[int | None]  # of this person, where it differs from the project's
    done: Mapped[int]
    skips: Mapped[int]
    gold_seen: Mapped[int]
    gold_right: Mapped[int]
    consented_at: Mapped[float | None]


class Picture(Base):
    """A picture file by the sha256 of its bytes."""

    __tablename__ = "picture"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    suffix: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]


class Item(Base):
    """One prompt with its pictures, to be answered by `wanted` people; `taken` of them hold or have used a place."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    prompt_id: Mapped[str]
    prompt: Mapped[str]
    pictures: Mapped[list[Any]]  # sha256 of each
    hidden: Mapped[list[Any]]  # what is known of each picture (model, seed, file); never shown
    about: Mapped[Plain]
    gold: Mapped[Plain | None]  # the right answer of a test item
    testing: Mapped[bool]  # of the qualification, else of the hidden test items
    sensitive: Mapped[bool]
    wanted: Mapped[int]
    taken: Mapped[int]
    open: Mapped[bool]  # taken < wanted and no test item
    priority: Mapped[float]  # higher first
    shuffle: Mapped[float]
    created_at: Mapped[float]
    __table_args__ = (
        Index("item_next", "project_id", "open", "priority", "shuffle"),
        Index("item_prompt", "project_id", "prompt_id"),
        Index("item_gold", "project_id", "testing", sqlite_where=GOLD, postgresql_where=GOLD),
    )


class Assignment(Base):
    """An item given to a person: the lease, and what became of it. `token` is the only name that the page knows."""

    __tablename__ = "assignment"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    token: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotator.id"))
    kind: Mapped[str]  # work, test, gold, repeat, relabel
    shown: Mapped[list[Any]]  # shown[k]: which of the item's pictures stands at place k
    state: Mapped[str]  # leased, expired, answered, skipped, late, rejected
    review: Mapped[str]  # nothing, pending, accepted, rejected, relabelled
    leased_at: Mapped[float]
    expires_at: Mapped[float]
    answered_at: Mapped[float | None]
    version: Mapped[int]
    __table_args__ = (
        UniqueConstraint("item_id", "annotator_id", "kind", name="assignment_once"),
        Index("assignment_person", "annotator_id", "project_id", "state", "answered_at"),
        Index("assignment_lease", "state", "expires_at"),
        Index("assignment_review", "review"),
    )


class Event(Base):
    """One thing that happened. Never changed, never removed."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    at: Mapped[float]
    kind: Mapped[str]  # see audit.KINDS
    annotator_id: Mapped[int | None] = mapped_column(ForeignKey("annotator.id"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    item_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignment.id"))
    shown: Mapped[list[Any] | None]
    answer: Mapped[Plain | None]  # in the order of the item, not of the page
    ms: Mapped[int | None]
    client: Mapped[str | None]
    client_token: Mapped[str | None] = mapped_column(unique=True)  # makes sending again harmless
    guideline: Mapped[int | None]
    app: Mapped[str]
    late: Mapped[bool]
    about: Mapped[Plain | None]
    __table_args__ = (Index("event_assignment", "assignment_id"), Index("event_project", "project_id", "id"))


class Database:
    """An open database, brought to the newest schema. Use `session()` for work, `engine` for the writer."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._readers = engine.execution_options(reading=True)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed when the block ends well, else rolled back."""
        with Session(self.engine) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """For reading only: takes no lock, so that nobody waits for a long look."""
        with Session(self._readers) as session:
            yield session

    @contextlib.contextmanager
    def looking(self) -> Iterator[Connection]:
        """As `reading`, without a session's work: for what many requests look up."""
        with self._readers.connect() as connection:
            yield connection

    def checkpoint(self) -> None:
        """SQLite: bring what is in the log of writes into the file, so that the log begins anew and does not grow.

        Writers go on meanwhile: the first look takes what is there, the second what has come since, and only the
        third, which has little left, keeps them out. It gives up where somebody still reads what is old.
        """
        if self.engine.dialect.name != "sqlite":
            return
        own = sqlite3.connect(self.engine.url.database or "", timeout=PATIENCE, isolation_level=None)
        with contextlib.closing(own):
            for way in ("PASSIVE", "PASSIVE", "RESTART"):
                own.execute(f"PRAGMA wal_checkpoint({way})")

    def close(self) -> None:
        self.engine.dispose()


def database_url(where: str | Path) -> str:
    """A URL as SQLAlchemy takes it: of a file, or the URL that was given (`postgresql://` is read by psycopg)."""
    words = str(where)
    if "://" not in words:
        return f"sqlite:///{Path(words).expanduser().resolve()}"
    for short in ("postgresql://", "postgres://"):
        if words.startswith(short):
            return "postgresql+psycopg://" + words.removeprefix(short)
    return words


def open_database(where: str | Path) -> Database:
    """Open a file or URL, create it where it is new, and run the migrations that it lacks.

    Raises TastemakerError for a URL that is wrong, a server that does not answer, or a file that is no database.
    """
    from .migrate import upgrade

    url = database_url(where)
    shown = str(where) if "://" not in str(where) else str(where).split("@")[-1]  # no password in a message
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise TastemakerError(f"expected a file or a postgresql:// URL, got {parsed.get_backend_name()}")
        engine = _sqlite(url) if parsed.get_backend_name() == "sqlite" else _postgresql(url)
        upgrade(engine)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "psycopg", "web") from error
    except (ArgumentError, SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise TastemakerError(f"cannot open the database {shown}: {reason}") from error
    return Database(engine)


def _sqlite(url: str) -> Engine:
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # transactions are begun below, not by the driver's guess
        cursor = raw.cursor()
        for words in PRAGMAS:
            cursor.execute(f"PRAGMA {words}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")  # else two writers could deadlock

    return engine


def _postgresql(url: str) -> Engine:
    return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)


def get_setting(db: Connection | Session, name: str) -> str | None:
    return db.execute(text("SELECT value FROM setting WHERE name = :name"), {"name": name}).scalar()


def put_setting(db: Connection | Session, name: str, value: str) -> None:
    """Keep a fact that was not known yet; an older one stays."""
    words = "INSERT INTO setting (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"
    db.execute(text(words), {"name": name, "value": value})
