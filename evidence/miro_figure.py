"""The figure of miro.py, from its rows: rewards over training, best-of-N, and the target sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .miro_judges import JUDGED, REWARDS

BLUE, ORANGE, YELLOW, GREEN, GREY = "#4c78a8", "#f58518", "#eeca3b", "#54a24b", "#9d9d9d"
COLOURS = {"baseline": BLUE, "miro": ORANGE, "unasked": YELLOW}
LABELS = {"baseline": "baseline, g = 2", "miro": "MIRO, asked, g = 3", "unasked": "MIRO, nothing asked, g = 2"}


def draw_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A column a judge; a row each for training, best-of-N and the sweep, as far as these ran and have the judge."""
    by_claim = {r["claim"]: r for r in rows}
    panels = {"speedup_{}": over_steps, "bon8_minus_bon128_{}": over_n, "target_sweep_{}": over_targets}
    there = {c: draw for c, draw in panels.items() if c.format(REWARDS[0]) in by_claim}
    if not there:
        return
    shape = (len(there), len(JUDGED))
    figure, axes = plt.subplots(*shape, figsize=(3.0 * shape[1], 2.7 * shape[0]), layout="constrained", squeeze=False)
    for line, (claim, draw) in zip(axes, there.items()):
        for axis, name in zip(line, JUDGED):
            found = by_claim.get(claim.format(name))
            axis.set_axis_off() if found is None else draw(axis, found["beside"], name)
            axis.set_title(name if found else "")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def over_steps(axis: Any, beside: Mapping[str, Any], name: str) -> None:
    """Runs told one reward are drawn in grey, and in green where it is the panel's own."""
    curves = beside["curves"]
    for kind in REWARDS:
        own = {"color": GREEN, "label": f"told {name} alone"} if kind == name else {"color": GREY, "lw": 0.7}
        axis.plot(curves["steps"], curves[kind], **own)
    for kind, label in LABELS.items():
        axis.plot(curves["steps"], curves[kind], marker=".", color=COLOURS[kind], label=label)
    axis.axhline(beside["end"], color=BLUE, lw=0.8, ls=":", label="baseline's end, g = 3")
    axis.set(xscale="log", xlabel="step")
    axis.legend(fontsize=6)


def over_n(axis: Any, beside: Mapping[str, Any], name: str) -> None:
    for kind, curve in beside["curves"].items():
        axis.plot([int(n) for n in curve], list(curve.values()), marker=".", color=COLOURS[kind], label=kind)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="N of best-of-N")
    axis.legend(fontsize=7)


def over_targets(axis: Any, beside: Mapping[str, Any], name: str) -> None:
    means = beside["means"]
    axis.plot([float(level) for level in means], [one[name] for one in means.values()], marker=".", color=ORANGE)
    axis.set(xlabel="target")
