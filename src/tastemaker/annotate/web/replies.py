"""What is said where a request cannot be done: in JSON to the page's script, else as a page."""

from __future__ import annotations

from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from ...errors import TastemakerError
from ...page_server import TooLong
from ..submit import Conflict, NotYours
from .state import Forbidden, NoSession, State

STATUS = {NotYours: 404, Conflict: 409, Forbidden: 403}
KNOWN = (NoSession, TastemakerError, SQLAlchemyError, TooLong)  # what `reply_to` has words for


def reply_to(state: State, request: Request, error: Exception) -> Response:
    """error: one of KNOWN."""
    if isinstance(error, NoSession):
        return _log_in(request)
    if isinstance(error, TooLong):
        return PlainTextResponse("expected less", 413)
    if isinstance(error, SQLAlchemyError):
        return said(state, request, "The database does not answer. Nothing was lost; please try again.", 503)
    status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), 422)
    return said(state, request, str(error), status)


def _log_in(request: Request) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": "please log in again"}, 401)
    if request.method != "GET":
        return RedirectResponse("/login", 303)
    return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)


def said(state: State, request: Request, sentence: str, status: int) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": sentence}, status)
    try:
        person = state.person(request)
    except (NoSession, TastemakerError):
        person = None
    return state.page("message.html", person, status, title="That did not work", message=sentence)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/pictures/"))
