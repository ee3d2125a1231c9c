"""One transaction for all that waits; who fails, fails alone: on SQLite and on PostgreSQL."""

import asyncio
import threading
import time
from collections import Counter

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from tastemaker.annotate.database import open_database
from tastemaker.annotate.writer import Writer
from tastemaker.errors import TastemakerError


def adding(value, ran=None):
    """A job that adds a setting, and fails for every fifth number."""

    def job(db):
        if ran is not None:
            ran[value] += 1
        db.execute(text("INSERT INTO setting (name, value) VALUES (:n, :n)"), {"n": str(value)})
        if value % 5 == 0:
            raise TastemakerError(f"job {value}")
        return value

    return job


def settings_of(database):
    with database.reading() as session:
        return {int(n) for (n,) in session.execute(text("SELECT name FROM setting"))}


def test_the_writer_commits_together_and_keeps_failures_apart(where):
    database = open_database(where)

    async def play():
        writer = Writer(database.engine)
        said = await asyncio.gather(*(writer.submit(adding(k)) for k in range(40)), return_exceptions=True)
        assert [x for x in said if isinstance(x, int)] == [k for k in range(40) if k % 5]
        assert [str(x) for x in said if not isinstance(x, int)] == [f"job {k}" for k in range(0, 40, 5)]
        with pytest.raises(DBAPIError):
            await writer.submit(adding(1))
        writer.stop()
        with pytest.raises(TastemakerError, match="shut down"):
            writer.submit(adding(99))

    asyncio.run(play())
    assert settings_of(database) == {k for k in range(40) if k % 5}


def test_one_failure_among_many_costs_few_commits(where):
    """The others of its transaction are not each done alone: halves that go well are committed as they are."""
    database, commits, ran = open_database(where), [], Counter()
    event.listen(database.engine, "commit", lambda _connection: commits.append(1))

    async def play():
        writer = Writer(database.engine)
        writer.submit(lambda _db: time.sleep(0.3))  # the others wait together meanwhile
        said = await asyncio.gather(*(writer.submit(adding(k, ran)) for k in range(1, 6)), *(
            writer.submit(adding(k, ran)) for k in range(6, 36) if k % 5), return_exceptions=True)  # fmt: skip
        writer.stop()
        return said

    said = asyncio.run(play())
    assert [str(x) for x in said if not isinstance(x, int)] == ["job 5"] and len(said) == 29
    assert len(commits) <= 7, "the sleeper, and at most one for each halving of 29"
    assert max(ran.values()) <= 6 and settings_of(database) == {x for x in said if isinstance(x, int)}


def test_who_asked_and_went_away_does_no_harm(where):
    database = open_database(where)

    async def play():
        writer = Writer(database.engine)
        writer.submit(lambda _db: time.sleep(0.1))
        gone = writer.submit(adding(1))
        gone.cancel()
        assert await writer.submit(adding(2)) == 2
        writer.stop()

    asyncio.run(play())
    assert settings_of(database) == {1, 2}, "what was submitted is kept, though nobody waits for it"


def test_a_loop_that_is_closed_does_not_stop_the_writer(where):
    database = open_database(where)
    writer, held = Writer(database.engine), threading.Event()

    async def leave():
        writer.submit(lambda _db: held.wait(5))
        writer.submit(adding(1))

    asyncio.run(leave())
    held.set()

    async def come():
        return await writer.submit(adding(2))

    assert asyncio.run(come()) == 2
    writer.stop()
    assert settings_of(database) == {1, 2}
