"""drl.py, third part, one seed: a preference tuned after DRL beside the same preference tuned alone.

Both are adjoint matching after the shipped preference reward, at the same values of lambda; after DRL the DRL model
is the start and the base. What is liked is measured by the simulated raters' utility, which no run was trained on,
and fidelity by what a Frechet distance has above its floor, in the space that DRL's discriminator never saw. Drift is
how far mean saturation and brightness lie from those of clean drawings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker import load_reward
from tastemaker.evaluation.pareto import dominated_area, nadir
from tastemaker.records import Interval

from . import drl_training as training
from .drl_distance import groups_of, jackknife
from .drl_lab import COMMAND, Lab, generator
from .drl_pictures import HELD_OUT, REAL, Drawn
from .rows import row

STRENGTHS = (3.0, 10.0)  # lambda of the preference
FIRST = "default-0"  # the DRL run that the preference comes after
LIKED = "raters"
LOOKS = ("saturation", "brightness")


def run(lab: Lab) -> tuple[dict[str, Drawn], dict[str, Drawn]]:
    """Pictures of the front that begins with tiny-flow, and of the one that begins with DRL, ends included."""
    alone, after = {"base": lab.base}, {"base": lab.base, "drl": lab.tuned(FIRST, scored=True)}
    for strength in STRENGTHS:
        for start, made in (("base", alone), ("drl", after)):
            name = f"preference-{start}-{strength:g}"
            lab.once(name, lambda name=name, start=start, strength=strength: trained(lab, name, start, strength))
            made[name] = lab.tuned(name, scored=True)
    return alone, after


def trained(lab: Lab, name: str, start: str, strength: float) -> dict[str, Any]:
    begun = training.tuned(generator(), lab.cache / FIRST) if start == "drl" else None
    lab.drl(name, load_reward("preference"), strength, start=begun, short=True)
    return {"lambda": strength, "start": start, "seed": 0, **lab.about(lab.tuned(name, scored=True))}


def points(lab: Lab, made: Mapping[str, Drawn], rows: NDArray) -> NDArray:
    """(P, 2): mean utility, and minus the excess distance."""
    reference = lab.references[HELD_OUT]
    floor = reference.distance(reference.floor[rows])
    found = []
    for one in made.values():
        distance = reference.distance(one.features[HELD_OUT].numpy()[rows])
        found.append([float(one.scores[LIKED].numpy()[rows].mean()), floor - distance])
    return np.array(found)


def rows(lab: Lab) -> list[dict[str, Any]]:
    alone, after = run(lab)
    whole = np.arange(lab.count)
    corner = nadir(np.concatenate([points(lab, made, whole) for made in (alone, after)]))

    def gain(rows: NDArray) -> float:
        ours, theirs = (dominated_area(points(lab, made, rows), corner) for made in (after, alone))
        return ours - theirs

    value = jackknife(gain, groups_of(lab.texts))
    fronts = {
        kind: dict(zip(made, points(lab, made, whole).tolist()))
        for kind, made in (("preference alone", alone), ("after drl", after))
    }
    beside = {"axes": [LIKED, "minus the excess distance"], "corner": corner.tolist(), "points": fronts}
    area = row("pareto_hypervolume_delta", value, [value.value], (0,), COMMAND, 0.0, beside, unit="area")
    return [area, *(drift_row(lab, look, alone, after) for look in LOOKS)]


def drift_row(lab: Lab, look: str, alone: Mapping[str, Drawn], after: Mapping[str, Drawn]) -> dict[str, Any]:
    """Mean distance from clean drawings after the preference, after DRL over alone, over all values of lambda."""
    clean = lab.clean.looks[look].numpy()[REAL * lab.count :]

    def drift(made: Mapping[str, Drawn], rows: NDArray) -> float:
        tuned = [one.looks[look].numpy()[rows].mean() for name, one in made.items() if name.startswith("preference")]
        return float(np.abs(np.array(tuned) - clean.mean()).mean())

    inner = jackknife(lambda rows: float(np.log(drift(after, rows) / drift(alone, rows))), groups_of(lab.texts))
    value = Interval(*(float(np.exp(v)) for v in (inner.value, inner.low, inner.high)), inner.count)
    means = {name: float(one.looks[look].mean()) for name, one in (alone | after).items()}
    beside = {"means": means | {"clean": float(clean.mean())}}
    return row(f"{look}_drift_ratio", value, [value.value], (0,), COMMAND, 1.0, beside, unit="ratio, lower is better")
