"""Who may talk to the server: signed sessions, tokens against forged forms, and limits."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from ...page_server import MOST_JSON

COOKIE = "tastemaker_session"
HOURS = 12
MOST_UPLOAD = 512 * 2**20  # bytes of an import
MOST_READ = 10_000  # cookies whose signature is remembered


@dataclass(frozen=True)
class Ticket:
    """What the cookie says: whose session (0: nobody's yet), of which epoch, and its own random name."""

    person: int
    epoch: int
    nonce: str


class Sessions:
    """Cookies that only this server can make. They hold no secret, and die with the epoch of their person."""

    def __init__(self, secret: str, secure: bool = False):
        self._key = secret.encode()
        self._read: dict[str, tuple[Ticket, float]] = {}  # cookie -> what it says, until when
        self._serializer = URLSafeTimedSerializer(
            secret, salt="session", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self.secure = secure

    def open(self, response: Response, person: int, epoch: int) -> Ticket:
        """Begin a session; always under a new name, so that one planted before a login is worthless."""
        ticket = Ticket(person, epoch, secrets.token_urlsafe(12))
        words = self._serializer.dumps([ticket.person, ticket.epoch, ticket.nonce])
        response.set_cookie(
            COOKIE, words, max_age=HOURS * 3600, httponly=True, samesite="lax", secure=self.secure, path="/"
        )
        return ticket

    def read(self, request: Request) -> Ticket | None:
        """What the cookie says, or None where there is none, it is not ours, or its hours are over."""
        words = request.cookies.get(COOKIE)
        if not words:
            return None
        known = self._read.get(words)
        if known is None:
            known = self._verified(words)
            if known is None:
                return None
            if len(self._read) >= MOST_READ:
                self._read.clear()
            self._read[words] = known
        return known[0] if time.time() < known[1] else None

    def _verified(self, words: str) -> tuple[Ticket, float] | None:
        try:
            said, made = self._serializer.loads(words, max_age=HOURS * 3600, return_timestamp=True)
            return Ticket(*said), made.timestamp() + HOURS * 3600
        except (BadSignature, TypeError, ValueError):
            return None

    def form_token(self, ticket: Ticket) -> str:
        """Goes into every form and every request that changes something; bound to the session."""
        return _form_token(self._key, ticket.nonce)

    def form_fits(self, ticket: Ticket | None, token: Any) -> bool:
        return ticket is not None and isinstance(token, str) and hmac.compare_digest(self.form_token(ticket), token)


@lru_cache(MOST_READ)
def _form_token(key: bytes, nonce: str) -> str:
    return hmac.digest(key, f"form:{nonce}".encode(), "sha256").hex()[:40]


class LoginLimit:
    """At most `most` failures for a name from one address, and ten times as many from one address, in `seconds`."""

    def __init__(self, most: int = 5, seconds: float = 300.0):
        self.most, self.seconds = most, seconds
        self._failures: dict[tuple[str, ...], deque[float]] = {}

    def wait(self, address: str, login: str) -> float:
        """Seconds until another try is allowed; 0 is now."""
        now = time.monotonic()
        waits = [self._left((address, login.casefold()), self.most, now), self._left((address,), self.most * 10, now)]
        return max(waits)

    def failed(self, address: str, login: str) -> None:
        now = time.monotonic()
        if len(self._failures) > 20_000:  # many made-up names must not fill the memory
            self._failures = {k: v for k, v in self._failures.items() if v and now - v[-1] < self.seconds}
        for key in ((address, login.casefold()), (address,)):
            self._failures.setdefault(key, deque(maxlen=self.most * 10)).append(now)

    def succeeded(self, address: str, login: str) -> None:
        """Also takes back what was counted for this try: many people may log in from one address."""
        self._failures.pop((address, login.casefold()), None)
        if tries := self._failures.get((address,)):
            tries.pop()

    def _left(self, key: tuple[str, ...], most: int, now: float) -> float:
        times = self._failures.get(key, deque())
        while times and now - times[0] > self.seconds:
            times.popleft()
        return self.seconds - (now - times[0]) if len(times) >= most else 0.0


def longest_body(path: str) -> int:
    """Bytes that may be sent to a path: pictures where items are imported, else an answer."""
    return MOST_UPLOAD if path.endswith("/import") else MOST_JSON
