"""drl.py, first part: does the discriminator's reward bring tiny-flow nearer to clean drawings?

At the paper's preset `default`, three seeds of discriminator and DRL each: Frechet distance above the floor in the
discriminator's space and in one that it never saw, coverage, and rewards that were not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.records import Interval
from tastemaker.world.raters import Taste, choice_probabilities

from . import drl_training as training
from .drl_distance import interval, log_ratio, ratio_interval
from .drl_lab import COMMAND, PRESETS, Lab, figure, generator
from .drl_pictures import HELD_OUT, TRAINED, Drawn
from .rows import row

Record = Mapping[str, Any]
PRESET = "default"
PAPER = {HELD_OUT: 88.2 / 19.3, TRAINED: 241.93 / 54.37}  # SiT-XL/2: DINOv3 at lambda = 20, DINOv2 at 10, with R1
TARGET = {HELD_OUT: 2.0, TRAINED: 2.5}
SHORT = {HELD_OUT: "heldout", TRAINED: "discriminator"}


def run_of(lab: Lab, seed: int) -> dict[str, Any]:
    """The record of one run."""

    def make() -> dict[str, Any]:
        strength, r1 = PRESETS[PRESET]
        made = lab.tuned(train(lab, seed), scored=True)
        return {"lambda": strength, "r1": r1, **lab.about(made), "win_rate_by_raters": win_rate(made, lab.base)}

    return lab.once(f"{PRESET}-{seed}", make)


def train(lab: Lab, seed: int) -> str:
    """The run's name; its weights are there afterwards."""
    strength, r1 = PRESETS[PRESET]
    lab.drl(f"{PRESET}-{seed}", lambda: lab.discriminator(r1, seed), strength, seed)
    return f"{PRESET}-{seed}"


def teacher(lab: Lab) -> Any:
    """tiny-flow after the first seed's run of the preset."""
    return training.tuned(generator(), lab.cache / train(lab, 0))


def rows(lab: Lab) -> list[dict[str, Any]]:
    made = [run_of(lab, seed) for seed in lab.seeds]
    found = [distance_row(lab, space, made) for space in (HELD_OUT, TRAINED)]
    return [*found, coverage_row(lab, made), preference_row(lab, made)]


def distance_row(lab: Lab, space: str, made: Sequence[Record]) -> dict[str, Any]:
    sides = {"floor": [lab.clean_record()], "base": [lab.base_record()], "tuned": made}
    distances = {name: [figure(one, "spaces", space, "distance") for one in side] for name, side in sides.items()}
    (floor,), (base,), tuned = distances.values()
    beside = {
        "space": space,
        "preset": PRESET,
        "pictures": lab.count,
        "frechet": {name: float(np.mean([one[0] for one in side])) for name, side in distances.items()},
        "others": {name: [one["spaces"][space]["beside"] for one in side] for name, side in sides.items()},
    }
    value = ratio_interval(log_ratio(base, tuned, floor), lab.count)
    each = [float(np.exp(log_ratio(base, [one], floor)[0])) for one in tuned]
    claim, target = f"frechet_ratio_{SHORT[space]}", TARGET[space]
    return row(claim, value, each, lab.seeds, COMMAND, target, beside, PAPER[space], "ratio of excesses")


def changes(lab: Lab, made: Sequence[Record], *names: str) -> list[NDArray]:
    """S of (J,): of one figure, tuned less base."""
    return [figure(one, *names) - figure(lab.base_record(), *names) for one in made]


def change(lab: Lab, made: Sequence[Record], *names: str) -> Interval:
    return interval(np.mean(changes(lab, made, *names), 0), lab.count)


def coverage_row(lab: Lab, made: Sequence[Record]) -> dict[str, Any]:
    """In the discriminator's space; beside it, in the one held out."""
    own = ("spaces", TRAINED, "coverage")
    beside = {HELD_OUT: change(lab, made, "spaces", HELD_OUT, "coverage")}
    each = [float(one[0]) for one in changes(lab, made, *own)]
    return row(
        "coverage_delta", change(lab, made, *own), each, lab.seeds, COMMAND, 0.0, beside, unit="share of drawings"
    )


def preference_row(lab: Lab, made: Sequence[Record]) -> dict[str, Any]:
    """The learned preference; beside it every other score that was not trained on, and how often raters choose."""
    scores = lab.base_record()["scores"]
    beside: dict[str, Any] = {n: change(lab, made, "scores", n) for n in scores if n != "preference"}
    beside["win_rate_by_raters"] = float(np.mean([one["win_rate_by_raters"] for one in made]))
    beside["base"] = {name: values[0] for name, values in scores.items()}
    each = [float(one[0]) for one in changes(lab, made, "scores", "preference")]
    value = change(lab, made, "scores", "preference")
    return row("preference_delta", value, each, lab.seeds, COMMAND, 0.0, beside, unit="score")


def win_rate(ours: Drawn, base: Drawn) -> float:
    """The chance that a simulated rater takes our picture over the base's of the same prompt and seed."""
    worth = ours.scores["raters"].double(), base.scores["raters"].double()
    return float(choice_probabilities(*worth, Taste())[:, 0].mean())
