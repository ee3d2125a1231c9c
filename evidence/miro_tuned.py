"""miro.py, fifth part, exploratory, one seed: the paper's own contrast. The baseline is trained for nine tenths of
its steps and then tuned on one reward, by ReFL or by DPO on pairs of its own pictures, with what the last tenth would
have cost: all have had as much compute as MIRO's whole run. All judges, GenEval's tasks by the world's check, and
diversity are compared; beside each row stands what the tuning gained over the whole baseline run.

Compute is counted in pictures that go once through the flow's network forwards, and three times as much where a
gradient comes back; decoder and rewards are not counted, nor is the scoring of MIRO's pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tastemaker.evaluation.intervals import paired_difference
from tastemaker.report.metrics import read_metrics
from tastemaker.workflows.dpo import train_dpo
from tastemaker.workflows.refl import train_refl

from .miro_curves import DEVIATIONS, overall, right
from .miro_judges import CHECK, RATERS, REWARDS, column
from .miro_lab import BASELINE_GUIDANCE, COMMAND, Lab, loaded
from .rows import row

REWARD = "preference"
FORWARD, TRAINED = 1, 3
REFL_BATCH = 32
ROUNDS, CANDIDATES, PAIRS, DRAWS = 2, 6, 16, 2  # of DPO: rounds, pictures of a prompt, pairs a step, draws of a gain
DRAWING = 0.4  # of DPO's compute is for the pictures that it chooses from
STEPS = 8  # of sampling


def rows(lab: Lab) -> list[dict[str, Any]]:
    base, ours = (lab.finales(kind, [0])[0] for kind in ("baseline", "miro"))
    found = []
    for method, words in (("refl", refl_words), ("dpo", dpo_words)):
        tuned = tuned_baseline(lab, method, words(budget(lab)))
        found += [judge_row(lab, method, name, ours, tuned, base) for name in (*REWARDS, RATERS)]
        found += [check_row(lab, method, ours, tuned, base), spread_row(lab, method, ours, tuned, base)]
        found[-1]["beside"]["share_of_compute"] = float(tuned["spent"]) / whole(lab)
    return found


def whole(lab: Lab) -> int:
    """What a run of the lab costs."""
    return lab.scale.steps * lab.scale.batch_size * TRAINED


def budget(lab: Lab) -> int:
    """What is left of it for the tuning."""
    return (lab.scale.steps - lab.early_step) * lab.scale.batch_size * TRAINED


def refl_words(budget: int) -> list[str]:
    """Settings for that much: a late step is the 7th or the 8th of 8, and captioned pictures go beside it."""
    each = REFL_BATCH * (6.5 * FORWARD + 2 * TRAINED)
    return [f"batch_size={REFL_BATCH}", f"steps={max(2, round(budget / each))}"]


def dpo_words(budget: int) -> list[str]:
    prompts = max(4, round(DRAWING * budget / (ROUNDS * CANDIDATES * drawing())))
    each = DRAWS * 2 * PAIRS * (FORWARD + TRAINED)  # reference and policy on both pictures of a pair
    steps = max(ROUNDS, round((budget - ROUNDS * CANDIDATES * prompts * drawing()) / each))
    sizes = [f"per_prompt={CANDIDATES}", f"drawn_prompts={prompts}", f"batch_size={PAIRS}", f"steps={steps}"]
    return [*sizes, f"rounds={ROUNDS}", f"draws={DRAWS}"]


def drawing() -> int:
    """What a guided picture costs."""
    return STEPS * FORWARD * (2 if BASELINE_GUIDANCE != 1 else 1)


TRAIN: Mapping[str, Callable[..., Any]] = {"refl": train_refl, "dpo": train_dpo}


def tuned_baseline(lab: Lab, method: str, words: Sequence[str]) -> dict[str, Tensor]:
    """Its record, with `spent` (1,), the compute of the baseline and its tuning."""

    def make() -> dict[str, Tensor]:
        folder = lab.cache / f"{method}-0"
        if not (folder / "model.safetensors").is_file():
            said = [f"model={lab.early(0)}", f"reward={REWARD}", "watch.every=100000", *words]
            begun = folder if (folder / "config.yaml").is_file() else None
            TRAIN[method](None, said, folder, begun)
        used = torch.tensor([spent(lab, method, folder)], dtype=torch.float64)
        return {"spent": used, **lab.finale(loaded(folder))}

    return lab.once(f"{method}-0", make)


def spent(lab: Lab, method: str, folder: Path) -> float:
    """From what the tuning wrote down step by step."""
    steps = read_metrics(folder / "metrics.jsonl")
    early = lab.early_step * lab.scale.batch_size * TRAINED
    if method == "refl":
        return early + sum(REFL_BATCH * (one["late_step"] * FORWARD + 2 * TRAINED) for one in steps)
    pairs = sum(one["pairs"] + one["dropped_prompts"] for one in steps if "pairs" in one)
    return early + pairs * CANDIDATES * drawing() + len(steps) * DRAWS * 2 * PAIRS * (FORWARD + TRAINED)


Finale = Mapping[str, Tensor]


def judge_row(lab: Lab, method: str, name: str, ours: Finale, tuned: Finale, base: Finale) -> dict[str, Any]:
    """MIRO less the tuned baseline, in standard deviations of the whole baseline."""
    deviation = base["scores"][:, column(name)].std()
    ours_, tuned_, base_ = (one["scores"][:, column(name)] / deviation for one in (ours, tuned, base))
    value = paired_difference(ours_, tuned_, lab.texts)
    beside = {"tuned_over_baseline": paired_difference(tuned_, base_, lab.texts)}
    return row(f"over_{method}_{name}", value, [value.value], [0], COMMAND, None, beside, unit=DEVIATIONS)


def check_row(lab: Lab, method: str, ours: Finale, tuned: Finale, base: Finale) -> dict[str, Any]:
    value = overall(lab, right(ours) - right(tuned))
    beside = {"tuned_over_baseline": overall(lab, right(tuned) - right(base))}
    return row(f"over_{method}_{CHECK}", value, [value.value], [0], COMMAND, None, beside)


def spread_row(lab: Lab, method: str, ours: Finale, tuned: Finale, base: Finale) -> dict[str, Any]:
    prompts = sorted({p.text for p in lab.prompts})
    spreads = [one["spread"].numpy() for one in (ours, tuned, base)]
    value = paired_difference(spreads[0], spreads[1], prompts)
    beside = {"tuned_over_baseline": paired_difference(spreads[1], spreads[2], prompts)}
    return row(f"over_{method}_diversity", value, [value.value], [0], COMMAND, None, beside, unit="cosine distance")
