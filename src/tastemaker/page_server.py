"""What every local server of pages shares: a door to listen at, headers for the browser, an end to long bodies, JSON.

Written on the standard library and ASGI alone, so that it can stand before any app.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import TastemakerError, expect

STYLE = Path(__file__).parent / "assets" / "pages"  # the style, the icon and the script that all pages share
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_RAW = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
MOST_JSON = 256 * 1024  # bytes of an answer


def listen(host: str, port: int) -> socket.socket:
    """An open door. Raises TastemakerError where the port is taken or the host is not this machine."""
    expect(0 <= port < 65_536, "a port from 0 to 65535", port)
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(kind)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as error:
        place.close()
        reason = error.strerror or error
        raise TastemakerError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from error
    return place


async def json_body(request: Any) -> dict[str, Any]:
    """Raises TastemakerError for anything but a JSON object."""
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, or nested without end
        raise TastemakerError("expected JSON") from error
    if not isinstance(body, dict):
        raise TastemakerError("expected a JSON object")
    return body


class Shield:
    """ASGI: security headers on every answer, and an end to bodies that are too long.

    longest: the path -> how many bytes may be sent to it.
    """

    def __init__(self, app: Any, longest: Callable[[str], int] = lambda _path: MOST_JSON):
        self.app, self.longest = app, longest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.longest(scope["path"])
        length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(_with_headers(send), most)
            return
        await self.app(scope, _counted(receive, most), _with_headers(send))


async def _refuse(send: Any, most: int) -> None:
    words = f"expected at most {most >> 10} KiB".encode()
    kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(words)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": kind})
    await send({"type": "http.response.body", "body": words})


class TooLong(Exception):
    """A body without an honest length."""


def _counted(receive: Any, most: int) -> Any:
    seen = 0

    async def counted() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLong
        return message

    return counted


def _with_headers(send: Any) -> Any:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = message.get("headers", ())
            named = {name for name, _ in own}
            message["headers"] = [*own, *(pair for pair in _RAW if pair[0] not in named)]
        await send(message)

    return sending
