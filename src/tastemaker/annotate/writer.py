"""One writer for the whole server, and one commit for all that waits: the way to many answers a second.

Requests hand over jobs; a thread takes all jobs that wait, runs each under its own savepoint in one transaction,
commits once, and only then answers. What has been acknowledged is therefore on the disk: on SQLite with
`synchronous=FULL` the write-ahead log is flushed before a commit returns, so an acknowledged vote survives `kill -9`
and, where the disk keeps its word, a loss of power. A job that was not acknowledged may be there or not; the client
sends it again under the same token.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ..errors import TastemakerError

T = TypeVar("T")
Job = Callable[[Connection], Any]
Work = tuple[Job, "Future[Any]"]
Outcome = tuple["Future[Any]", Any, BaseException | None]
MOST = 64  # jobs in one commit


class Writer:
    """Start it, `submit` jobs from any thread, `stop` it at the end; what was submitted before is still done."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._stopped = False
        self._thread.start()

    def submit(self, job: Callable[[Connection], T]) -> Future[T]:
        """The future has the job's result once it is committed, or what it raised."""
        if self._stopped:
            raise TastemakerError("the server is being shut down")
        future: Future[T] = Future()
        self._waiting.put((job, future))
        return future

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        while True:
            jobs, last = self._take()
            if jobs:
                self._commit(jobs)
            if last:
                return

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

    def _commit(self, jobs: list[Work]) -> None:
        try:
            outcomes = self._together(jobs)
        except BaseException as error:  # the transaction as a whole: a lock, a deadlock, a connection that broke
            if len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
                return
            outcomes = [(jobs[0][1], None, error)]
        for future, result, error in outcomes:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _together(self, jobs: list[Work]) -> list[Outcome]:
        with self.engine.begin() as connection:
            return [self._one(connection, *work) for work in jobs]

    def _one(self, connection: Connection, job: Job, future: Future[Any]) -> Outcome:
        try:
            with connection.begin_nested():
                return future, job(connection), None
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return future, None, error
        except Exception as error:
            return future, None, error
