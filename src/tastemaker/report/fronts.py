"""Fronts of two figures as a PNG: every point, the edge of what each front dominates, names where the eye is."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLOURS = ("#4c78a8", "#e45756", "#54a24b", "#b279a2", "#f58518", "#72b7b2")
FAINT = 0.3  # opacity of a point that another one beats


@dataclass(frozen=True)
class FrontPoint:
    """A point in the units of the figures; `spread`: half its 95 % interval on each axis, 0 where unknown."""

    name: str
    x: float
    y: float
    spread: tuple[float, float] = (0.0, 0.0)
    best: bool = True  # no point of its front beats it


@dataclass(frozen=True)
class Axis:
    name: str
    lower_is_better: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} ({'lower' if self.lower_is_better else 'higher'} is better)"


def fronts_png(fronts: Mapping[str, Sequence[FrontPoint]], x: Axis, y: Axis, dpi: int = 130) -> bytes:
    """One colour a front; points that another one of their front beats are faint and without a name."""
    from matplotlib.figure import Figure  # a second to import

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axis = figure.subplots()
    for k, (name, points) in enumerate(fronts.items()):
        _front(axis, name, points, COLOURS[k % len(COLOURS)], x.lower_is_better)
    axis.set_xlabel(x.label)
    axis.set_ylabel(y.label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(0.15)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def _front(axis: Any, name: str, points: Sequence[FrontPoint], colour: str, lower: bool) -> None:
    for p in points:
        reach = {"xerr": p.spread[0] or None, "yerr": p.spread[1] or None}
        opacity = 1.0 if p.best else FAINT
        axis.errorbar(p.x, p.y, **reach, fmt="o", markersize=5, color=colour, alpha=opacity, elinewidth=0.8)
    best = sorted((p for p in points if p.best), key=lambda p: p.x)
    # what a point dominates begins at its own x where lower is better, and ends there where higher is
    xs, ys = [p.x for p in best], [p.y for p in best]
    axis.step(xs, ys, where="post" if lower else "pre", color=colour, linewidth=1.2)
    for p in best:
        if p.name != name:
            axis.annotate(p.name, (p.x, p.y), (5, 4), textcoords="offset points", fontsize=7.5, color="#555")
    last = best[-1]
    axis.annotate(
        name, (last.x, last.y), (7, -11), textcoords="offset points", fontsize=10, color=colour, weight="bold"
    )
