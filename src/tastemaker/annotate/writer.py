"""One writer for the whole server, and one commit for all that waits: the way to many answers a second.

Requests hand over jobs; a thread takes all jobs that wait, runs them in one transaction, commits once, and only then
answers. What has been acknowledged is therefore on the disk: on SQLite with `synchronous=FULL` the write-ahead log is
flushed before a commit returns, so an acknowledged vote survives `kill -9` and, where the disk keeps its word, a loss
of power. A job that was not acknowledged may be there or not; the client sends it again under the same token.

Where a job of a transaction fails, nothing of that transaction stays; its first half and its second half are then
done each in one of its own, and so on, until the job that fails is alone and gets its error. A job may thus be run
several times, but is kept once. Failures are rare, so this costs less than a savepoint around each job.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ..errors import TastemakerError

T = TypeVar("T")
Job = Callable[[Connection], Any]
Work = tuple[Job, "asyncio.Future[Any]"]
Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]
MOST = 64  # jobs in one commit


class Writer:
    """Start it, `submit` jobs from any event loop, `stop` it at the end; what was submitted before is still done."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._connection: Connection | None = None
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._stopped = False
        self._thread.start()

    def submit(self, job: Callable[[Connection], T]) -> asyncio.Future[T]:
        """The future has the job's result once it is committed, or what it raised."""
        if self._stopped:
            raise TastemakerError("the server is being shut down")
        told: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.put((job, told))
        return told

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            jobs, last = self._take()
            _tell(self._commit(jobs))
        self._let_go()

    def _take(self) -> tuple[list[Work], bool]:
        """All that waits, at least one; and whether it was the last."""
        jobs: list[Work] = []
        found = self._waiting.get()
        while found is not None:
            jobs.append(found)
            if len(jobs) >= MOST or self._waiting.empty():
                return jobs, False
            found = self._waiting.get()
        return jobs, True

    def _commit(self, jobs: Sequence[Work]) -> list[Outcome]:
        if not jobs:
            return []
        try:
            results = self._together([job for job, _ in jobs])
            return [(told, result, None) for (_, told), result in zip(jobs, results)]
        except BaseException as error:  # of a job, or of them all: a lock, a deadlock, a connection that broke
            self._let_go()
            if len(jobs) == 1:
                return [(jobs[0][1], None, error)]
        half = len(jobs) // 2
        return self._commit(jobs[:half]) + self._commit(jobs[half:])

    def _together(self, jobs: Sequence[Job]) -> list[Any]:
        if self._connection is None:  # kept: its cache knows the pages that it has written
            self._connection = self.engine.connect()
        with self._connection.begin():
            return [job(self._connection) for job in jobs]

    def _let_go(self) -> None:
        """Give the connection back; after a fault the pool looks whether it still works."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()


def _tell(outcomes: Sequence[Outcome]) -> None:
    """Wake each event loop once for all that were committed together."""
    loops: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome[0].get_loop(), []).append(outcome)
    for loop, some in loops.items():
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, some)


def _settle(outcomes: Sequence[Outcome]) -> None:
    for told, result, error in outcomes:
        if told.done():  # who asked has gone away
            continue
        if error is None:
            told.set_result(result)
        else:
            told.set_exception(error)
