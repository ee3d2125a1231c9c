"""drl.py, first part: does the discriminator's reward bring tiny-flow nearer to clean drawings?

At the paper's preset `default` three seeds of discriminator and DRL, at `theory` one: Frechet distance above the
floor in the discriminator's space and in one that it never saw, coverage, and rewards that were not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.records import Interval
from tastemaker.world.raters import Taste, choice_probabilities

from .drl_distance import interval, log_ratio, ratio_interval
from .drl_lab import COMMAND, PRESETS, Lab, figure
from .drl_pictures import HELD_OUT, TRAINED, Drawn
from .rows import row

Record = Mapping[str, Any]
HEADLINE = "default"  # the preset whose claims carry no other name; others have one seed
PAPER = {  # SiT-XL/2, Table 2: Inception 9.38 / 2.62 at theory; DINOv2 241.93 / 54.37, lambda = 10 with R1
    ("theory", HELD_OUT): 9.38 / 2.62,
    ("default", TRAINED): 241.93 / 54.37,
}
TARGET = {HELD_OUT: 2.0, TRAINED: 2.5}
SHORT = {HELD_OUT: "heldout", TRAINED: "discriminator"}


def run_of(lab: Lab, preset: str, seed: int) -> dict[str, Any]:
    """The record of one run."""

    def make() -> dict[str, Any]:
        strength, r1 = PRESETS[preset]
        made = lab.tuned(train(lab, preset, seed), scored=True)
        return {"lambda": strength, "r1": r1, **lab.about(made), "win_rate_by_raters": win_rate(made, lab.base)}

    return lab.once(f"{preset}-{seed}", make)


def train(lab: Lab, preset: str, seed: int) -> str:
    """The run's name; its weights are there afterwards."""
    strength, r1 = PRESETS[preset]
    lab.drl(f"{preset}-{seed}", lambda: lab.discriminator(r1, seed), strength, seed)
    return f"{preset}-{seed}"


def seeds_of(lab: Lab, preset: str) -> Sequence[int]:
    return lab.seeds if preset == HEADLINE else lab.seeds[:1]


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = []
    for preset in (HEADLINE, *(p for p in PRESETS if p != HEADLINE)):
        made = [run_of(lab, preset, seed) for seed in seeds_of(lab, preset)]
        found += [distance_row(lab, preset, space, made) for space in (HELD_OUT, TRAINED)]
        found += [coverage_row(lab, preset, made), preference_row(lab, preset, made)]
    return found


def called(claim: str, preset: str) -> str:
    return claim if preset == HEADLINE else f"{claim}_{preset}"


def distance_row(lab: Lab, preset: str, space: str, made: Sequence[Record]) -> dict[str, Any]:
    floor, base = (figure(one, "spaces", space, "distance") for one in (lab.clean_record(), lab.base_record()))
    tuned = [figure(one, "spaces", space, "distance") for one in made]
    sides = {"floor": [lab.clean_record()], "base": [lab.base_record()], "tuned": made}
    beside = {
        "space": space,
        "preset": preset,
        "pictures": lab.count,
        "frechet": {name: float(np.mean([d[0] for d in side])) for name, side in
                    {"floor": [floor], "base": [base], "tuned": tuned}.items()},
        "others": {name: [one["spaces"][space]["beside"] for one in side] for name, side in sides.items()},
    }  # fmt: skip
    value = ratio_interval(log_ratio(base, tuned, floor), lab.count)
    each = [float(np.exp(log_ratio(base, [one], floor)[0])) for one in tuned]
    claim = called(f"frechet_ratio_{SHORT[space]}", preset)
    paper = PAPER.get((preset, space))
    return row(claim, value, each, seeds_of(lab, preset), COMMAND, TARGET[space], beside, paper, "ratio of excesses")


def changes(lab: Lab, made: Sequence[Record], *names: str) -> list[NDArray]:
    """S of (J,): of one figure, tuned less base."""
    return [figure(one, *names) - figure(lab.base_record(), *names) for one in made]


def change(lab: Lab, made: Sequence[Record], *names: str) -> Interval:
    return interval(np.mean(changes(lab, made, *names), 0), lab.count)


def coverage_row(lab: Lab, preset: str, made: Sequence[Record]) -> dict[str, Any]:
    """In the discriminator's space; beside it, in the one held out."""
    own = ("spaces", TRAINED, "coverage")
    beside = {HELD_OUT: change(lab, made, "spaces", HELD_OUT, "coverage")}
    each = [float(one[0]) for one in changes(lab, made, *own)]
    claim = called("coverage_delta", preset)
    return row(
        claim, change(lab, made, *own), each, seeds_of(lab, preset), COMMAND, 0.0, beside, unit="share of drawings"
    )


def preference_row(lab: Lab, preset: str, made: Sequence[Record]) -> dict[str, Any]:
    """The learned preference; beside it every other score that was not trained on, and how often raters choose."""
    scores = lab.base_record()["scores"]
    beside: dict[str, Any] = {n: change(lab, made, "scores", n) for n in scores if n != "preference"}
    beside["win_rate_by_raters"] = float(np.mean([one["win_rate_by_raters"] for one in made]))
    beside["base"] = {name: values[0] for name, values in scores.items()}
    each = [float(one[0]) for one in changes(lab, made, "scores", "preference")]
    value, claim = change(lab, made, "scores", "preference"), called("preference_delta", preset)
    return row(claim, value, each, seeds_of(lab, preset), COMMAND, 0.0, beside, unit="score")


def win_rate(ours: Drawn, base: Drawn) -> float:
    """The chance that a simulated rater takes our picture over the base's of the same prompt and seed."""
    worth = ours.scores["raters"].double(), base.scores["raters"].double()
    return float(choice_probabilities(*worth, Taste())[:, 0].mean())
