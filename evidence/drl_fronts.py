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
from tastemaker.evaluation.pareto import dominated_areas, nadir

from . import drl_gain
from .drl_distance import interval, ratio_interval
from .drl_lab import COMMAND, Lab, figure
from .drl_pictures import HELD_OUT
from .rows import row

Record = Mapping[str, Any]
STRENGTHS = (3.0, 10.0)  # lambda of the preference
LIKED = "raters"
LOOKS = ("saturation", "brightness")


def run(lab: Lab) -> tuple[dict[str, Record], dict[str, Record]]:
    """Records of the front that begins with tiny-flow, and of the one that begins with DRL, ends included."""
    alone: dict[str, Record] = {"base": lab.base_record()}
    after = {"base": lab.base_record(), "drl": drl_gain.run_of(lab, 0)}
    for strength in STRENGTHS:
        for start, made in (("base", alone), ("drl", after)):
            name = f"preference-{start}-{strength:g}"
            made[name] = lab.once(name, lambda name=name, start=start, k=strength: trained(lab, name, start, k))
    return alone, after


def trained(lab: Lab, name: str, start: str, strength: float) -> dict[str, Any]:
    begun = (lambda: drl_gain.teacher(lab)) if start == "drl" else None
    lab.drl(name, lambda: load_reward("preference"), strength, start=begun, steps=lab.scale.short)
    return {"lambda": strength, "start": start, **lab.about(lab.tuned(name, scored=True))}


def points(lab: Lab, made: Mapping[str, Record]) -> NDArray:
    """(J, P, 2): mean utility, and minus the excess distance."""
    floor = figure(lab.clean_record(), "spaces", HELD_OUT, "distance")
    liked = [figure(one, "scores", LIKED) for one in made.values()]
    near = [floor - figure(one, "spaces", HELD_OUT, "distance") for one in made.values()]
    return np.stack([np.stack(liked, 1), np.stack(near, 1)], 2)


def rows(lab: Lab) -> list[dict[str, Any]]:
    alone, after = run(lab)
    found = {"preference alone": points(lab, alone), "after drl": points(lab, after)}
    corner = nadir(np.concatenate([one[0] for one in found.values()]))
    areas = {kind: dominated_areas(one, corner) for kind, one in found.items()}  # (J,) each
    value = interval(areas["after drl"] - areas["preference alone"], lab.count)
    fronts = {kind: dict(zip(side, found[kind][0].tolist())) for kind, side in zip(found, (alone, after))}
    beside = {"axes": [LIKED, "minus the excess distance"], "corner": corner.tolist(), "points": fronts}
    area = row("pareto_hypervolume_delta", value, [value.value], (0,), COMMAND, 0.0, beside, unit="area")
    return [area, *(drift_row(lab, look, alone, after) for look in LOOKS)]


def drift_row(lab: Lab, look: str, alone: Mapping[str, Record], after: Mapping[str, Record]) -> dict[str, Any]:
    """Mean distance from clean drawings after the preference, after DRL over alone, over all values of lambda."""
    clean = lab.clean_record()["looks"][look]

    def drift(made: Mapping[str, Record]) -> NDArray:  # (J,)
        tuned = [figure(one, "looks", look) for name, one in made.items() if name.startswith("preference")]
        return np.abs(np.array(tuned) - clean).mean(0)

    value = ratio_interval(np.log(drift(after) / drift(alone)), lab.count)
    means = {name: float(figure(one, "looks", look)[0]) for name, one in (alone | after).items()}
    beside = {"means": means | {"clean": clean}}
    return row(f"{look}_drift_ratio", value, [value.value], (0,), COMMAND, 1.0, beside, unit="ratio, lower is better")
