"""Plots as inline SVG, with their numbers as text. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH = 460
Bar = Mapping[str, Any]  # value, and low and high where known


def bars(
    rows: Mapping[str, Bar | float],
    title: str,
    low: float = 0.0,
    high: float | None = None,
    mark: float | None = None,
) -> Markup:
    """Horizontal bars from `low` to `high` (the largest value if not given), with intervals; a line at `mark`."""
    values = {name: row if isinstance(row, Mapping) else {"value": row} for name, row in rows.items()}
    top = high if high is not None else max([v.get("high") or v["value"] for v in values.values()] + [low + 1e-9])
    scale = lambda v: 150 + (min(max(v, low), top) - low) / (top - low) * (WIDTH - 215)  # noqa: E731
    parts = [_bar(scale, 8 + 26 * k, name, v, low) for k, (name, v) in enumerate(values.items())]
    height = 12 + 26 * len(values)
    rule = "" if mark is None else f'<path class="rule" d="M{scale(mark):.1f} 2V{height - 2}"/>'
    return svg(height, title, rule + "".join(parts))


def _bar(scale: Any, y: float, name: str, row: Bar, low: float) -> str:
    start, end = sorted((scale(max(low, 0.0)), scale(row["value"])))
    text = f'<text x="142" y="{y + 14}" text-anchor="end">{escape(name[:22])}</text>'
    bar = f'<rect class="bar" x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1):.1f}" height="14" rx="2"/>'
    whisker, right = "", end
    if row.get("low") is not None and row.get("high") is not None:
        a, b = scale(row["low"]), scale(row["high"])
        whisker = f'<path class="whisker" d="M{a:.1f} {y + 10}H{b:.1f}M{a:.1f} {y + 6}v8M{b:.1f} {y + 6}v8"/>'
        right = max(end, b)
    return f'{text}{bar}{whisker}<text x="{right + 6:.1f}" y="{y + 14}">{number(row["value"])}</text>'


def line(values: Sequence[float], title: str, first: str, last: str) -> Markup:
    """A curve over equal steps, from `first` to `last`."""
    top, left, height = max([*values, 1]), 34, 150
    step = (WIDTH - left - 10) / max(1, len(values) - 1)
    points = "L".join(
        f"{left + k * step:.1f} {height - 24 - v / top * (height - 40):.1f}" for k, v in enumerate(values)
    )
    body = (
        f'<path class="rule" d="M{left} 16H{WIDTH - 10}M{left} {height - 24}H{WIDTH - 10}"/>'
        f'<text x="{left - 6}" y="20" text-anchor="end">{number(top)}</text>'
        f'<text x="{left - 6}" y="{height - 20}" text-anchor="end">0</text>'
        f'<text x="{left}" y="{height - 6}">{escape(first)}</text>'
        f'<text x="{WIDTH - 10}" y="{height - 6}" text-anchor="end">{escape(last)}</text>'
        f'<path class="line" d="M{points}"/>'
    )
    return svg(height, title, body)


def svg(height: float, title: str, body: str) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{body}</svg>'
    )


def number(value: Any) -> str:
    """Short, and a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.3g}"


def share(row: Any) -> Markup:
    """A share in per cent, with its interval where it is known."""
    if row is None:
        return Markup("–")
    if not isinstance(row, Mapping):
        return Markup(f"{row:.0%}")
    return Markup(f'{row["value"]:.0%} <span class="range">[{row["low"]:.0%}, {row["high"]:.0%}]</span>')
