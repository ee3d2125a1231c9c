"""Tables of figures: a value with its interval, a difference with its verdict. Everything is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..records import Interval

MARKS = {"better": "▲", "worse": "▼", "undecided": "○"}


@dataclass(frozen=True)
class Difference:
    """A paired difference, new minus old; for figures where less is better the verdict is turned round."""

    interval: Interval
    less_is_better: bool = False

    def verdict(self) -> str:
        """`better`, `worse` or `undecided`."""
        verdict = self.interval.verdict()
        return {"better": "worse", "worse": "better"}.get(verdict, verdict) if self.less_is_better else verdict


Cell = str | int | float | bool | Interval | Difference | None


@dataclass(frozen=True)
class Table:
    """Column heads and rows; the first cell of a row is its head."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def html(self) -> str:
        heads = "".join(f'<th scope="col">{escape(c)}</th>' for c in self.columns)
        body = "".join(f"<tr>{_row(row)}</tr>" for row in self.rows)
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: Sequence[Cell]) -> str:
    head = f'<th scope="row">{cell_html(row[0])}</th>'
    return head + "".join(f"<td{_class(c)}>{cell_html(c)}</td>" for c in row[1:])


def _class(cell: Cell) -> str:
    return "" if isinstance(cell, str) else ' class="number"'


def cell_html(cell: Cell) -> str:
    """What stands in one cell; None is a dash."""
    if cell is None:
        return '<span class="quiet">–</span>'
    if isinstance(cell, Difference):
        return difference_html(cell)
    if isinstance(cell, Interval):
        return f"{number(cell.value)} {range_html(cell)}"
    return escape(cell) if isinstance(cell, str) else escape(number(cell))


def range_html(interval: Interval) -> str:
    return f'<span class="range">[{number(interval.low)}, {number(interval.high)}]</span>'


def difference_html(cell: Difference) -> str:
    """+0.12 [0.05, 0.19] and a badge that says it in a word."""
    verdict = cell.verdict()
    badge = f'<span class="badge {verdict}">{MARKS[verdict]} {verdict}</span>'
    return f"{badge} {number(cell.interval.value, sign=True)} {range_html(cell.interval)}"


def number(value: float | int | bool, sign: bool = False) -> str:
    """Three decimals below 10, fewer above, thousands with commas; a true minus sign."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value != value:
        return "no value"
    size = abs(value)
    digits = 0 if isinstance(value, int) else 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    if 0 < size < 0.0005:
        return f"{value:{'+' if sign else ''}.1e}".replace("-", "−")
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")
