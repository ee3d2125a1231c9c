"""The figure of drl.py, from its rows: what lies above the floor in two spaces, the fronts, methods and bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .drl_pictures import HELD_OUT

BLUE, ORANGE, GREY = "#4c78a8", "#f58518", "#9d9d9d"
SPACES = {"discriminator": "discriminator's\nspace", "heldout": "held-out\nspace"}
METHODS = {"drl_equal_compute": "DRL", "flow_grpo": "Flow-GRPO", "nft": "DiffusionNFT", "awm": "AWM",
           "sft_on_samples": "flow matching\non DRL's pictures", "scratch": "encoder from\nnothing"}  # fmt: skip


def draw_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Panels of the parts that ran; whiskers are 95 % intervals."""
    by_claim = {r["claim"]: r for r in rows}
    panels = [panel for panel in (gain_panel, methods_panel, fronts_panel, backbones_panel) if panel(None, by_claim)]
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.2), layout="constrained", squeeze=False)
    for axis, panel in zip(axes[0], panels):
        panel(axis, by_claim)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def gain_panel(axis: Any, rows: Mapping[str, Any]) -> bool:
    """Each panel says whether its rows are there, and draws only on an axis."""
    found = {label: r for name, label in SPACES.items() if (r := rows.get(f"frechet_ratio_{name}"))}
    if axis is not None and found:
        bars(axis, found, "base over tuned, above the floor; three seeds")
    return bool(found)


def methods_panel(axis: Any, rows: Mapping[str, Any]) -> bool:
    found = {label: r for name, label in METHODS.items() if (r := rows.get(f"{name}_frechet_ratio_heldout"))}
    if axis is not None and found:
        bars(axis, found, "the same, held-out space; one seed")
    return bool(found)


def backbones_panel(axis: Any, rows: Mapping[str, Any]) -> bool:
    row = rows.get("backbones_improved")
    if axis is not None and row:
        bars(
            axis,
            {name: r[HELD_OUT]["ratio"] for name, r in row["beside"].items()},
            "four small bases, λ = 1, held-out space",
        )
    return row is not None


def bars(axis: Any, rows: Mapping[str, Mapping[str, Any]], title: str) -> None:
    at, values = range(len(rows)), [r["value"] for r in rows.values()]
    reach = [
        [max(0, r["value"] - r["low"]) for r in rows.values()],
        [max(0, r["high"] - r["value"]) for r in rows.values()],
    ]
    axis.barh(at, values, xerr=reach, color=BLUE, error_kw={"elinewidth": 1, "capsize": 2})
    axis.set_yticks(at, list(rows), fontsize=8)
    axis.invert_yaxis()
    axis.axvline(1, color="grey", linewidth=0.8)
    for k, value in enumerate(values):
        axis.text(0.03, k, f"{value:.2f}", va="center", fontsize=8, color="white")
    axis.set_title(title, fontsize=9)


def fronts_panel(axis: Any, rows: Mapping[str, Any]) -> bool:
    row = rows.get("pareto_hypervolume_delta")
    if axis is not None and row:
        for (kind, points), colour in zip(row["beside"]["points"].items(), (GREY, ORANGE)):
            found = sorted(points.values())
            axis.plot([p[0] for p in found], [p[1] for p in found], marker="o", color=colour)
            axis.annotate(
                kind, found[-1], fontsize=8, color=colour, xytext=(-6, 8), textcoords="offset points", ha="right"
            )
        axis.set_xlabel("raters' utility", fontsize=8)
        axis.set_ylabel("minus the distance above its floor", fontsize=8)
        axis.set_title("a preference, alone and after DRL", fontsize=9)
    return row is not None
