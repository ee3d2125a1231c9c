"""drl.py, first part: does the discriminator's reward bring tiny-flow nearer to clean drawings?

At the paper's two presets, three seeds of discriminator and DRL each: Frechet distance above the floor in the
discriminator's space and in one that it never saw, coverage, and rewards that were not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tastemaker.evaluation.intervals import paired_difference
from tastemaker.world.raters import Taste, choice_probabilities

from .drl_distance import coverage_change, excess_ratio, kernel_distances, neighbours
from .drl_lab import COMMAND, PRESETS, Lab
from .drl_pictures import HELD_OUT, TRAINED, Drawn
from .rows import row

HEADLINE = "default"  # the preset whose claims carry no other name
PAPER = {  # SiT-XL/2, Table 2: Inception 9.38 / 2.62 at theory; DINOv2 241.93 / 54.37, lambda = 10 with R1
    ("theory", HELD_OUT): 9.38 / 2.62,
    ("default", TRAINED): 241.93 / 54.37,
}
TARGET = {HELD_OUT: 2.0, TRAINED: 2.5}
SHORT = {HELD_OUT: "heldout", TRAINED: "discriminator"}


def run(lab: Lab) -> dict[str, list[Drawn]]:
    """Preset -> pictures of every seed's run."""
    made: dict[str, list[Drawn]] = {name: [] for name in PRESETS}
    for seed in lab.seeds:
        for preset in PRESETS:
            lab.once(f"{preset}-{seed}", lambda preset=preset, seed=seed: trained(lab, preset, seed))
            made[preset].append(lab.tuned(f"{preset}-{seed}", scored=True))
    return made


def trained(lab: Lab, preset: str, seed: int) -> dict[str, Any]:
    strength, r1 = PRESETS[preset]
    lab.drl(f"{preset}-{seed}", lab.discriminator(r1, seed), strength, seed)
    return {"lambda": strength, "r1": r1, "seed": seed, **lab.about(lab.tuned(f"{preset}-{seed}", scored=True))}


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = []
    for preset, made in run(lab).items():
        found += [distance_row(lab, preset, space, made) for space in (HELD_OUT, TRAINED)]
        found += [coverage_row(lab, preset, made), preference_row(lab, preset, made)]
    return found


def called(claim: str, preset: str) -> str:
    return claim if preset == HEADLINE else f"{claim}_{preset}"


def distance_row(lab: Lab, preset: str, space: str, made: Sequence[Drawn]) -> dict[str, Any]:
    reference, base = lab.references[space], lab.base.features[space].numpy()
    tuned = [one.features[space].numpy() for one in made]
    ratio, each, distances = excess_ratio(base, tuned, reference, lab.texts)
    beside = {
        "space": space,
        "preset": preset,
        "pictures": lab.count,
        "frechet": distances,
        "frechet_to_drawings_as_they_are": excess_ratio(base, tuned, lab.raw_references[space], lab.texts)[2],
        "kernel": kernel_distances(base, tuned, reference),
        "neighbours": {"base": neighbours(base, reference), "tuned": [neighbours(f, reference) for f in tuned]},
    }
    claim = called(f"frechet_ratio_{SHORT[space]}", preset)
    paper = PAPER.get((preset, space))
    return row(claim, ratio, each, lab.seeds, COMMAND, TARGET[space], beside, paper, "ratio of excesses")


def coverage_row(lab: Lab, preset: str, made: Sequence[Drawn]) -> dict[str, Any]:
    """In the discriminator's space; beside it, in the one held out."""

    def change(space: str) -> Any:
        base = lab.base.features[space].numpy()
        return coverage_change(base, [m.features[space].numpy() for m in made], lab.references[space], lab.texts)

    value, each = change(TRAINED)
    beside = {HELD_OUT: change(HELD_OUT)[0]}
    return row(
        called("coverage_delta", preset), value, each, lab.seeds, COMMAND, 0.0, beside, unit="share of drawings"
    )


def preference_row(lab: Lab, preset: str, made: Sequence[Drawn]) -> dict[str, Any]:
    """The learned preference; beside it every other score that was not trained on, and how often raters choose."""

    def change(name: str) -> Any:
        tuned = np.mean([one.scores[name].numpy() for one in made], 0)
        return paired_difference(tuned, lab.base.scores[name].numpy(), lab.texts)

    each = [float((m.scores["preference"] - lab.base.scores["preference"]).mean()) for m in made]
    beside = {name: change(name) for name in lab.base.scores if name != "preference"}
    beside["win_rate_by_raters"] = float(np.mean([win_rate(one, lab.base) for one in made]))
    beside["base"] = {name: float(values.mean()) for name, values in lab.base.scores.items()}
    return row(
        called("preference_delta", preset), change("preference"), each, lab.seeds, COMMAND, 0.0, beside, unit="score"
    )


def win_rate(ours: Drawn, base: Drawn) -> float:
    """The chance that a simulated rater takes our picture over the base's of the same prompt and seed."""
    worth = ours.scores["raters"].double(), base.scores["raters"].double()
    return float(choice_probabilities(*worth, Taste())[:, 0].mean())
