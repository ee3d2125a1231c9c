"""One thread that draws; a newer request of a page ends its older one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .asked import Stopped, Superseded

T = TypeVar("T")
LOOK = 0.25  # seconds between looks whether the page is still there


class Worker:
    """Jobs run one after the other, since two at once would only share the cores."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "studio")
        self._newest: dict[str, threading.Event] = {}

    async def run(self, page: str, job: Callable[[Stopped], T], left: Callable[[], Awaitable[bool]]) -> T:
        """What the job gives. page: whose older request ends now; left: whether the page has gone.

        Raises Superseded where a newer request of the page came, or the page has gone.
        """
        ended = threading.Event()
        if page in self._newest:
            self._newest[page].set()
        self._newest[page] = ended
        doing = asyncio.get_running_loop().run_in_executor(self._thread, _unless_stopped, job, ended.is_set)
        try:
            while not (await asyncio.wait({doing}, timeout=LOOK))[0]:
                if await left():
                    ended.set()
            return doing.result()
        finally:
            ended.set()
            if self._newest.get(page) is ended:
                del self._newest[page]

    def stop(self) -> None:
        """End what is being drawn, and wait for it."""
        for ended in self._newest.values():
            ended.set()
        self._thread.shutdown(cancel_futures=True)


def _unless_stopped(job: Callable[[Stopped], T], stopped: Stopped) -> T:
    """A job may have waited in the queue until nobody wanted it."""
    if stopped():
        raise Superseded
    return job(stopped)
