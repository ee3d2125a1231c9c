"""The figure of imagereward.py, from its rows: accuracy as votes grow, and who wins against the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "refl": "ReFL",
    "draft": "DRaFT-1",
    "raft": "RAFT",
    "reward_weighted": "reward-weighted",
    "sft": "filtered data",
}


def draw_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Whiskers and bands are 95 % intervals."""
    by_claim = {r["claim"]: r for r in rows}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    votes_panel(left, by_claim["reward_model_share_of_ceiling"], by_claim["reward_model_accuracy"])
    wins_panel(right, {m: by_claim[f"{m}_win_rate"] for m in LABELS})
    figure.savefig(path, dpi=130)
    plt.close(figure)


def votes_panel(axis: Any, share: Mapping[str, Any], last: Mapping[str, Any]) -> None:
    grown = {int(n): v["accuracy"] for n, v in share["beside"]["towers_frozen"].items()}
    n = sorted(grown)
    axis.plot(
        n, [grown[k]["value"] for k in n], marker="o", color="#4c78a8", label="learned from votes, towers frozen"
    )
    axis.fill_between(n, [grown[k]["low"] for k in n], [grown[k]["high"] for k in n], color="#4c78a8", alpha=0.2)
    reach = [[last["value"] - last["low"]], [last["high"] - last["value"]]]
    axis.errorbar(n[-1:], [last["value"]], yerr=reach, marker="s", color="#e45756", label="towers trained as well")
    ceiling = share["beside"]["ceiling"]["value"]
    axis.axhline(ceiling, color="black", linestyle=":", label=f"ceiling {ceiling:.3f}")
    scorers = {k: v["value"] for k, v in share["beside"]["scorers"].items()}
    for name, value in scorers.items():
        axis.axhline(value, color="grey", linewidth=0.8)
        axis.text(n[-1], value, f"{name} {value:.3f}", fontsize=8, va="bottom", ha="right")
    axis.set_xscale("log")
    axis.set_xlabel("votes")
    axis.set_title("share of held-out votes foretold", fontsize=10)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.92))


def wins_panel(axis: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    at, values = range(len(rows)), [r["value"] for r in rows.values()]
    reach = [[r["value"] - r["low"] for r in rows.values()], [r["high"] - r["value"] for r in rows.values()]]
    axis.barh(at, values, xerr=reach, color="#4c78a8", error_kw={"elinewidth": 1, "capsize": 2})
    axis.set_yticks(at, [LABELS[m] for m in rows], fontsize=9)
    axis.invert_yaxis()
    axis.axvline(0.5, color="grey", linewidth=0.8)
    axis.axvline(0.6, color="black", linestyle=":", linewidth=1)
    axis.set_xlim(0.35, max(0.75, max(values) + 0.05))
    for k, value in enumerate(values):
        axis.text(0.36, k, f"{value:.3f}", va="center", fontsize=9, color="white")
    axis.set_title("how often raters take it over the base (dotted: asked of ReFL)", fontsize=10)
