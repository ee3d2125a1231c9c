"""One self-contained page: no request leaves it, it reads well on a phone, in the dark and on paper.

    page = Page("What ReFL changed", "Three contenders, the same prompts and seeds.", [
        Section("Figures", [Table(["", "base", "refl"], [["GenEval", Interval(...), Interval(...)]])]),
        Section("Pictures", [PictureGrid([PictureRow("a red apple", [Picture(path, "base", True)])])]),
    ])
    write_page(page, "report.html")

Whatever has a method `html()` is a block: Text, Table, Bars, Curves, PictureGrid, Tiles, Listing, Step. Blocks escape
all the text they are given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol

from .tables import Cell, cell_html

STYLE = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Block(Protocol):
    """A piece of a section."""

    def html(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph per line."""

    text: str

    def html(self) -> str:
        return "".join(f"<p>{escape(line)}</p>" for line in self.text.splitlines() if line.strip())


@dataclass(frozen=True)
class Tile:
    """One large figure: what it is, its value, and what it is compared with."""

    label: str
    value: Cell
    note: Cell = None


@dataclass(frozen=True)
class Tiles:
    tiles: Sequence[Tile]

    def html(self) -> str:
        return f'<div class="tiles">{"".join(map(_tile, self.tiles))}</div>'


def _tile(tile: Tile) -> str:
    note = "" if tile.note is None else f'<div class="note">{cell_html(tile.note)}</div>'
    return (
        f'<div class="tile"><div class="quiet">{escape(tile.label)}</div>'
        f'<div class="big">{cell_html(tile.value)}</div>{note}</div>'
    )


@dataclass(frozen=True)
class Listing:
    """A file's text under a heading that opens it."""

    title: str
    text: str

    def html(self) -> str:
        return f"<details><summary>{escape(self.title)}</summary><pre>{escape(self.text)}</pre></details>"


@dataclass(frozen=True)
class Step:
    """Something to do next: a sentence, the command, and the address that it serves a page at, if it serves one."""

    text: str
    command: str
    address: str = ""

    def html(self) -> str:
        said = escape(self.address)
        link = f'<p>While it runs: <a href="{said}">{said}</a></p>' if self.address else ""
        return f"<p>{escape(self.text)}</p><pre>{escape(self.command)}</pre>{link}"


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"

    def html(self) -> str:
        blocks = "".join(block.html() for block in self.blocks)
        return f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2>{blocks}</section>'


@dataclass(frozen=True)
class Page:
    """title: the heading; lead: a sentence or two below it; footer: what made the page."""

    title: str
    lead: str
    sections: Sequence[Section]
    footer: str = ""

    def html(self) -> str:
        links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in self.sections)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{escape(self.title)}</title>'
            f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>"
            f"<header><h1>{escape(self.title)}</h1>{Text(self.lead).html()}<nav>{links}</nav></header>"
            f"<main>{''.join(s.html() for s in self.sections)}</main>"
            f"<footer>{Text(self.footer).html()}</footer></body></html>\n"
        )


def write_page(page: Page, path: str | Path) -> Path:
    """Write the page whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(page.html(), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
