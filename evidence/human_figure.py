"""The figure of human_preference.py: pair accuracy beside the baselines, and each generator left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tastemaker.records import Interval

SHOWN = {
    "pixels": "pixels and prompt, this model",
    "ridge": "ridge on usual features",
    "clip_like": "ImageNet names and words (no ratings)",
    "generator_only": "the generator's name alone",
    "left_out": "this model, generator left out",
}


def draw(figures: Mapping[str, Any], targets: Mapping[str, float], path: Path) -> None:
    """Two panels a score; whiskers are 95 % intervals."""
    figure, axes = plt.subplots(len(targets), 2, figsize=(11, 6.4), width_ratios=(3, 2), layout="constrained")
    for (left, right), (name, asked) in zip(axes, targets.items()):
        found = figures[name]
        bars(
            left,
            {label: found[key] for key, label in SHOWN.items()},
            f"{name}: pairs of one prompt in people's order",
        )
        left.axvline(asked, color="black", linestyle=":", linewidth=1)
        left.text(asked + 0.004, len(SHOWN) - 0.55, f"asked {asked}", fontsize=8)
        title = f"{name}: pairs with a generator that was left out"
        bars(right, found["left_out_by_generator"], title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def bars(axis: Any, values: Mapping[str, Interval], title: str) -> None:
    at = range(len(values))
    sizes = [v.value for v in values.values()]
    reach = [[v.value - v.low for v in values.values()], [v.high - v.value for v in values.values()]]
    axis.barh(at, sizes, color="#4c78a8", xerr=reach, error_kw={"elinewidth": 1, "capsize": 2})
    axis.set_yticks(at, list(values), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0.45, 0.95)
    axis.axvline(0.5, color="grey", linewidth=0.8)
    axis.set_title(title, fontsize=9)
    for k, v in enumerate(values.values()):
        axis.text(0.46, k, f"{v.value:.3f}", va="center", fontsize=8, color="white")
