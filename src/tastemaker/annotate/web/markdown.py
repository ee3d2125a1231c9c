"""As much Markdown as a guideline needs: headings, lists, paragraphs, bold. All else is plain text, escaped."""

from __future__ import annotations

import re
from itertools import groupby

from markupsafe import Markup, escape

_HEAD, _BULLET, _NUMBER = re.compile(r"(#{1,4}) +(.*)"), re.compile(r"[*-] +(.*)"), re.compile(r"\d+[.)] +(.*)")


def to_html(text: str) -> Markup:
    lines = [line.strip() for line in text.splitlines()]
    return Markup("\n").join(_block(kind, list(group)) for kind, group in groupby(lines, _kind) if kind)


def _kind(line: str) -> str:
    if not line:
        return ""
    if _HEAD.fullmatch(line):
        return "head"
    return "ul" if _BULLET.fullmatch(line) else "ol" if _NUMBER.fullmatch(line) else "p"


def _block(kind: str, lines: list[str]) -> Markup:
    if kind == "head":
        return Markup("\n").join(_head(line) for line in lines)
    if kind == "p":
        return Markup("<p>{}</p>").format(_inline(" ".join(lines)))
    pattern = _BULLET if kind == "ul" else _NUMBER
    items = [Markup("<li>{}</li>").format(_inline(pattern.fullmatch(line)[1])) for line in lines]  # type: ignore[index]
    return Markup("<{0}>{1}</{0}>").format(Markup(kind), Markup("").join(items))


def _head(line: str) -> Markup:
    marks, words = _HEAD.fullmatch(line).groups()  # type: ignore[union-attr]
    level = min(len(marks) + 1, 5)  # the page has the h1
    return Markup("<h{0}>{1}</h{0}>").format(level, _inline(words))


def _inline(text: str) -> Markup:
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text))))
