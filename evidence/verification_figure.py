"""The figure of verification.py, from its rows: Table A, score over compute, and previews step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .verification_table import ROWS

BLUE, ORANGE, GREY, GREEN = "#4c78a8", "#f58518", "#9d9d9d", "#54a24b"
SEARCHES = {"orm": ("best-of-N, fine-tuned ORM", BLUE), "parm": ("PARM", ORANGE), "halving": ("halving", GREEN)}
FORETOLD = {"orm": ("ORM's score", BLUE), "parm": ("PARM's potential", ORANGE), "prm": ("PRM's potential", GREEN)}


def draw_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Panels of the parts that ran; whiskers and bands are 95 % intervals."""
    by_claim = {r["claim"]: r for r in rows}
    needs = {table_panel: "base", compute_panel: "parm_compute_ratio", curve_panel: "n_curve_base_orm"}
    needs |= {likeness_panel: "prm_late_branches_over_paths", foretold_panel: "prm_late_branches_over_paths"}
    panels = [panel for panel, claim in needs.items() if claim in by_claim]
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 4.6), layout="constrained", squeeze=False)
    for axis, panel in zip(axes[0], panels):
        panel(axis, by_claim)
        axis.tick_params(labelsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def table_panel(axis: Any, rows: Mapping[str, Any]) -> None:
    names = [name for name in ROWS if name in rows]
    found = [rows[name] for name in names]
    values = [r["value"] for r in found]
    reach = [[r["value"] - r["low"] for r in found], [r["high"] - r["value"] for r in found]]
    colours = [GREY if name.startswith("flow") else ORANGE if "parm" in name else BLUE for name in names]
    axis.barh(range(len(names)), values, xerr=reach, color=colours, error_kw={"elinewidth": 0.8, "capsize": 1.5})
    paper = [(r["paper"], k) for k, r in enumerate(found) if r["paper"] is not None]
    axis.scatter(*zip(*paper), marker="|", s=60, color="black", zorder=3, label="Show-o, the paper")
    axis.set_yticks(range(len(names)), names, fontsize=6)
    axis.invert_yaxis()
    axis.set_title("GenEval's tasks of the world", fontsize=9)
    axis.legend(fontsize=7)


def compute_panel(axis: Any, rows: Mapping[str, Any]) -> None:
    curves: dict[str, Any] = {}
    for name in ("halving", "parm"):
        if found := rows.get(f"{name}_compute_ratio"):
            curves |= found["beside"]["curves"]
    for name, curve in curves.items():
        label, colour = SEARCHES[name]
        scores, costs = curve["score"].values(), list(curve["gflops"].values())
        axis.plot(costs, [s["value"] for s in scores], marker=".", color=colour, label=label)
        axis.fill_between(
            costs, [s["low"] for s in scores], [s["high"] for s in scores], color=colour, alpha=0.12, lw=0
        )
    axis.set(xscale="log", xlabel="GFLOPs of a picture, verifier and decoder included")
    axis.set_title("score at equal compute", fontsize=9)
    axis.legend(fontsize=7)


def curve_panel(axis: Any, rows: Mapping[str, Any]) -> None:
    for claim, r in rows.items():
        if claim.startswith("n_curve_"):
            curve = r["beside"]["curve"]
            label = claim.removeprefix("n_curve_")
            axis.plot([int(n) for n in curve], [v["value"] for v in curve.values()], marker=".", label=label)
    ceiling = rows["n_curve_base_orm"]["beside"]["by_one_who_always_knows"]
    axis.plot(
        [int(n) for n in ceiling], [v["value"] for v in ceiling.values()], color=GREY, ls=":", label="base, any"
    )
    axis.set(xscale="log", xlabel="N")
    axis.set_title("chosen by a judge, reported by the check", fontsize=9)
    axis.legend(fontsize=7)


def likeness_panel(axis: Any, rows: Mapping[str, Any]) -> None:
    beside = rows["prm_late_branches_over_paths"]["beside"]
    for name, colour, label in (("paths", BLUE, "paths"), ("branches", ORANGE, "branches of one path")):
        axis.plot(range(1, len(beside[name]) + 1), beside[name], marker=".", color=colour, label=label)
    axis.set(xlabel="step", ylim=(0, None))
    axis.set_title("how unlike previews are", fontsize=9)
    axis.legend(fontsize=7)


def foretold_panel(axis: Any, rows: Mapping[str, Any]) -> None:
    for name, values in rows["prm_late_branches_over_paths"]["beside"]["foretold"].items():
        label, colour = FORETOLD[name]
        known = [float("nan") if v is None else v for v in values]
        axis.plot(range(1, len(known) + 1), known, marker=".", color=colour, label=label)
    axis.axhline(0, color="grey", lw=0.8)
    axis.set(xlabel="step")
    axis.set_title("rank correlation of preview and end", fontsize=9)
    axis.legend(fontsize=7)
