"""Figures as inline SVG that takes its colours from the page, so that it is right on light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..records import Interval
from .tables import number

COLOURS = 6  # the page defines --c0 .. --c5


@dataclass(frozen=True)
class Bars:
    """Grouped horizontal bars with 95 % intervals: groups[group][series]."""

    groups: Mapping[str, Mapping[str, Interval]]
    caption: str = ""

    def html(self) -> str:
        series = list(dict.fromkeys(s for bars in self.groups.values() for s in bars))
        low, high = _limits([x for b in self.groups.values() for i in b.values() for x in (0.0, i.low, i.high)])
        left, width, bar, gap = 118, 480, 12, 12
        scale = lambda v: left + (v - low) / (high - low) * (width - left - 12)  # noqa: E731
        parts, y = [], 6
        top = y
        for group, bars in self.groups.items():
            middle = y + bar * len(bars) / 2 + 4
            parts.append(f'<text class="label" x="{left - 8}" y="{middle:.1f}">{escape(group)}</text>')
            for name, interval in bars.items():
                parts.append(_bar(scale, y, bar, interval, series.index(name), f"{group}, {name}"))
                y += bar
            y += gap
        ticks = "".join(_tick(scale(v), top - 4, y - gap + 4, v) for v in _ticks(low, high))
        picture = _svg(width, y + 14, self.caption or "bars with intervals", ticks + "".join(parts))
        return _figure(_legend(series) + picture, self.caption)


def _bar(scale, y: float, height: float, interval: Interval, colour: int, name: str) -> str:
    start, end = sorted((scale(0.0), scale(interval.value)))
    low, high, middle = scale(interval.low), scale(interval.high), y + height / 2
    said = f"{name}: {number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"
    return (
        f'<g class="s{colour % COLOURS}"><title>{escape(said)}</title>'
        f'<rect class="bar" x="{start:.1f}" y="{y + 1:.1f}" width="{max(end - start, 1):.1f}" '
        f'height="{height - 2:.1f}" rx="2"/>'
        f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 3:.1f}v6'
        f'M{high:.1f} {middle - 3:.1f}v6"/></g>'
    )


def _tick(x: float, top: float, bottom: float, value: float) -> str:
    return (
        f'<path class="rule" d="M{x:.1f} {top}V{bottom:.1f}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 13:.1f}">{escape(f"{value:.4g}")}</text>'
    )


@dataclass(frozen=True)
class Curves:
    """One small figure per metric, over the steps: rows as in metrics.jsonl; values that are missing are left out."""

    rows: Sequence[Mapping[str, float | None]]
    metrics: Sequence[str] = ()  # all of them if empty
    caption: str = ""

    def html(self) -> str:
        found = dict.fromkeys(k for row in self.rows for k, v in row.items() if isinstance(v, (int, float)))
        names = list(self.metrics) or [k for k in found if k not in ("step", "seconds")]
        curves = "".join(_curve(name, points) for name in names if len(points := _points(self.rows, name)) > 1)
        return _figure(f'<div class="curves">{curves}</div>', self.caption) if curves else ""


def _points(rows: Sequence[Mapping[str, float | None]], name: str) -> list[tuple[float, float]]:
    pairs = [(row.get("step"), row.get(name)) for row in rows]
    return [(float(x), float(y)) for x, y in pairs if x is not None and y is not None and math.isfinite(y)]


def smooth(values: Sequence[float], share: float = 0.1) -> list[float]:
    """A running mean over about `share` of the values, at the ends over those that there are."""
    half, total = max(1, int(len(values) * share / 2)), [0.0]
    for v in values:
        total.append(total[-1] + v)
    spans = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(total[b] - total[a]) / (b - a) for a, b in spans]


def thin(points: list[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most about `most` points: the means of equal spans."""
    span = math.ceil(len(points) / most)
    spans = [points[i : i + span] for i in range(0, len(points), span)]
    return [(p[-1][0], sum(y for _, y in p) / len(p)) for p in spans]


def _curve(name: str, points: list[tuple[float, float]]) -> str:
    width, height, left, bottom = 320, 190, 46, 22
    xs, ys = zip(*thin(points))
    low, high = _limits(ys)
    first, last = xs[0], max(xs[-1], xs[0] + 1)
    at_x = [left + (x - first) / (last - first) * (width - left - 10) for x in xs]
    at_y = lambda y: 10 + (high - y) / (high - low) * (height - bottom - 16)  # noqa: E731
    rules = "".join(
        f'<path class="rule" d="M{left} {at_y(v):.1f}H{width - 10}"/>'
        f'<text class="label" x="{left - 6}" y="{at_y(v) + 4:.1f}">{escape(f"{v:.4g}")}</text>'
        for v in _ticks(low, high)
    )
    ends = (
        f'<text class="tick" x="{left}" y="{height - 6}">{first:.0f}</text>'
        f'<text class="tick" x="{width - 18}" y="{height - 6}">{last:.0f}</text>'
    )
    lines = "".join(_line(kind, at_x, [at_y(y) for y in v]) for kind, v in (("raw", ys), ("mean", smooth(ys))))
    said = f"{name}: from {number(ys[0])} to {number(ys[-1])} over steps {first:.0f} to {last:.0f}"
    return f"<div><h4>{escape(name)}</h4>{_svg(width, height, said, rules + ends + lines)}</div>"


def _line(kind: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys))
    return f'<path class="{kind}" d="M{path}"/>'


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds the values and has a width."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - margin), high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About three to seven round values inside."""
    raw = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _legend(series: Sequence[str]) -> str:
    keys = "".join(f'<span class="key s{i % COLOURS}"><i></i>{escape(name)}</span>' for i, name in enumerate(series))
    return f'<div class="legend">{keys}</div>'


def _svg(width: float, height: float, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{width * 1.35:.0f}px">{body}</svg>'
    )


def _figure(body: str, caption: str) -> str:
    return f"<figure>{body}" + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "") + "</figure>"
