"""The figure of miro.py, from its rows: rewards over training, best-of-N, and the target sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .miro_lab import REWARDS

COLOURS = {"asked": "#f58518", "nothing_asked": "#eeca3b", "baseline": "#4c78a8", "miro": "#f58518"}
LABELS = {"asked": "MIRO, asked", "nothing_asked": "MIRO, nothing asked", "baseline": "baseline", "miro": "MIRO"}


def draw_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A column a reward; a row each for training, best-of-N and the sweep, as far as these ran."""
    by_claim = {r["claim"]: r for r in rows}
    panels = {"speedup_{}": over_steps, "bon8_minus_bon128_{}": over_n, "target_sweep_{}": over_targets}
    there = {c: draw for c, draw in panels.items() if c.format(REWARDS[0]) in by_claim}
    if not there:
        return
    shape = (len(there), len(REWARDS))
    figure, axes = plt.subplots(*shape, figsize=(3.2 * shape[1], 2.7 * shape[0]), layout="constrained", squeeze=False)
    for line, (claim, draw) in zip(axes, there.items()):
        for axis, name in zip(line, REWARDS):
            draw(axis, by_claim[claim.format(name)]["beside"], name)
            axis.set_title(name)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def over_steps(axis: Any, beside: Mapping[str, Any], name: str) -> None:
    curves = beside["curves"]
    for kind in ("baseline", "asked", "nothing_asked"):
        axis.plot(curves["steps"], curves[kind], marker=".", color=COLOURS[kind], label=LABELS[kind])
    axis.axhline(curves["baseline"][-1], color=COLOURS["baseline"], lw=0.8, ls=":")
    axis.set(xscale="log", xlabel="step")
    axis.legend(fontsize=7)


def over_n(axis: Any, beside: Mapping[str, Any], name: str) -> None:
    for kind, curve in beside["curves"].items():
        axis.plot([int(n) for n in curve], list(curve.values()), marker=".", color=COLOURS[kind], label=LABELS[kind])
    axis.set(xscale="log", xlabel="N of best-of-N")
    axis.legend(fontsize=7)


def over_targets(axis: Any, beside: Mapping[str, Any], name: str) -> None:
    means = beside["means"]
    axis.plot([float(level) for level in means], [one[name] for one in means.values()], marker=".", color="#f58518")
    axis.set(xlabel="target")
