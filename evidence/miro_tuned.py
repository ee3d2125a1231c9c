"""miro.py, fourth part, exploratory, one seed: the paper's own contrast. The whole baseline run and then ReFL on one
reward, which is more compute than MIRO's run had, beside MIRO: all rewards, the world's check and diversity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tastemaker.evaluation.diversity import per_prompt
from tastemaker.evaluation.intervals import paired_difference
from tastemaker.workflows.refl import train_refl

from .miro_lab import CHECK, COMMAND, REWARDS, Lab, column
from .rows import row

REWARD = "preference"
UNIT = "standard deviations of the baseline"


def rows(lab: Lab) -> list[dict[str, Any]]:
    """MIRO less the tuned baseline, judge by judge in standard deviations of the baseline."""
    base, ours = (lab.finales(kind, [0])[0] for kind in ("baseline", "miro"))
    tuned = tuned_baseline(lab)
    found = []
    for name in (*REWARDS, CHECK):
        j = column(name)
        deviation = base["scores"][:, j].std()
        value = paired_difference(ours["scores"][:, j] / deviation, tuned["scores"][:, j] / deviation, lab.texts)
        gained = paired_difference(tuned["scores"][:, j] / deviation, base["scores"][:, j] / deviation, lab.texts)
        beside = {"refl_over_baseline": gained}
        found.append(row(f"over_refl_{name}", value, [value.value], [0], COMMAND, None, beside, unit=UNIT))
    return [*found, spread_row(lab, ours, tuned)]


def tuned_baseline(lab: Lab) -> dict[str, Any]:
    folder = lab.cache / "refl-0"
    if not (folder / "model.safetensors").is_file():
        steps = 120 if lab.scale.steps > 100 else 2
        words = [f"model={lab.cache / 'baseline-0'}", f"reward={REWARD}", f"steps={steps}", "watch.every=1000"]
        train_refl(None, words, folder)
    return lab.finale("refl-0")


def spread_row(lab: Lab, ours: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    prompts = sorted({p.text for p in lab.prompts})
    sides: list[np.ndarray] = [per_prompt(one["features"].numpy(), lab.texts) for one in (ours, tuned)]
    value = paired_difference(*sides, prompts)
    return row("over_refl_diversity", value, [value.value], [0], COMMAND, unit="cosine distance")
