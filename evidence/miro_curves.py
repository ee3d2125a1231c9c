"""miro.py, first and second part: MIRO beside the baseline, one reward alone, hard filtering and a reward-weighted
loss, at equal training.

Speed-up is the paper's: the steps of the whole baseline run over the steps after which MIRO, asked for high levels,
has the value that the baseline ends with, interpolated between looks. It mixes how fast is learned with the shift of
what is drawn; so the same generator with nothing asked stands beside it, against a baseline that is guided by 2 as it
is: that is like for like. Runs that are told one reward, filtered or weighted have one seed. Letters: S seeds, T
looks, P prompts, K pictures of a prompt at the end, J judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.evaluation.geneval import over_tasks, task_codes
from tastemaker.evaluation.intervals import bootstrap, paired_difference
from tastemaker.records import Interval

from .miro_judges import CHECK, JUDGED, RATERS, REWARDS, column
from .miro_lab import COMMAND, Lab, mean_scores
from .rows import row

PAPER = {"preference": 6.3, "alignment": 3.5}  # HPSv2, and PickScore and ImageReward; Aesthetic 19
DEVIATIONS = "standard deviations of the baseline"
TARGET = {"speedup_min": 3.5, "speedup_max": 19.0, "geneval_delta": 0.10, "reward_delta_min": 0.0}


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = [*speed_rows(lab), geneval_row(lab, "geneval_delta", "miro", target=TARGET["geneval_delta"], paper=0.046)]
    return [*found, *reward_rows(lab), delta_row(lab, "held_out_delta_raters", "miro", RATERS), *diversity_rows(lab)]


def other_rows(lab: Lab) -> list[dict[str, Any]]:
    """Of hard filtering, of a reward-weighted loss, and of half synthetic captions for both; one seed."""
    one, found = lab.seeds_of_ablations, []
    for kind, name in (("filtered", "filtering"), ("weighted", "weighting")):
        found += [delta_row(lab, f"{name}_delta_{judge}", kind, judge, one) for judge in (*REWARDS, RATERS)]
        found.append(geneval_row(lab, f"{name}_delta_{CHECK}", kind, seeds=one))
    synthetic = ("miro-synthetic", "baseline-synthetic", one)
    return [*found, geneval_row(lab, "geneval_delta_synthetic", *synthetic, paper=0.107)]


def looks(lab: Lab, kind: str, seeds: Sequence[int], name: str = "looks") -> NDArray:
    """(S, T, P, J); of `end`, without T."""
    return np.stack([one[name].numpy() for one in lab.finales(kind, seeds)])


def crossing(steps: NDArray, curve: NDArray, level: float) -> float:
    """The step from which on the curve (T,) has the level, linear between looks; inf where its end does not have it.

    Noise is sharp, so that a curve may begin above the level: it counts from where it comes back to stay. Before the
    first look it is not known better than that look.
    """
    below = np.flatnonzero(curve < level)
    if not len(below):
        return float(steps[0])
    k = int(below[-1])
    if k == len(curve) - 1:
        return float("inf")
    share = (level - curve[k]) / (curve[k + 1] - curve[k])
    return float(steps[k] + (steps[k + 1] - steps[k]) * share)


def speedup(steps: NDArray, level: float, other: NDArray) -> float:
    """level: the baseline's end; other (T,); 0 where that never gets there."""
    return float(steps[-1]) / crossing(steps, other, level)


def speed_interval(steps: NDArray, end: NDArray, other: NDArray) -> Interval:
    """Of the mean over seeds; end (S, P) of the baseline, other (S, T, P). Resamples prompts, the same for both."""
    base, ours = end.mean(0), other.mean(0)  # (P,), (T, P)

    def statistic(picked: NDArray, which: NDArray, count: int) -> NDArray:
        rows = [picked[which == k] for k in range(count)]
        return np.array([speedup(steps, float(base[one].mean()), ours[:, one].mean(1)) for one in rows])

    return bootstrap(statistic, np.arange(len(base)))


def speed_rows(lab: Lab) -> list[dict[str, Any]]:
    """Of every judge; the slowest and the fastest of the rewards that MIRO is told are the claims."""
    steps, seeds, one = np.array(lab.look_steps(), np.float64), lab.scale.seeds, lab.seeds_of_ablations
    found = {kind: looks(lab, kind, seeds) for kind in ("baseline", "miro")}
    found |= {"unasked": looks(lab, "miro", seeds, "unasked"), **{kind: looks(lab, kind, one) for kind in REWARDS}}
    found["end"] = looks(lab, "baseline", seeds, "end")
    made = {name: speed_row(lab, steps, found, name) for name in JUDGED}
    ordered = sorted((made[name] for name in REWARDS), key=lambda one: one["value"])
    claims = [(ordered[0], "speedup_min", 3.5), (ordered[-1], "speedup_max", 19.0)]
    return [{**one, "claim": c, "target": TARGET[c], "paper": p} for one, c, p in claims] + list(made.values())


def speed_row(lab: Lab, steps: NDArray, found: Mapping[str, NDArray], name: str) -> dict[str, Any]:
    """found: kind -> (S, T, P, J), and `end` (S, P, J). Beside it MIRO with nothing asked against the baseline's own
    last look, which is like for like, the run that was told this reward alone, and all curves."""
    of = {kind: values[..., column(name)] for kind, values in found.items()}  # (S, T, P)
    end = of.pop("end")  # (S, P)
    each = [speedup(steps, float(e.mean()), o.mean(1)) for e, o in zip(end, of["miro"])]
    beside: dict[str, Any] = {"nothing_asked": speed_interval(steps, of["baseline"][:, -1], of["unasked"])}
    if name in REWARDS:
        beside["alone"] = speed_interval(steps, end[: len(of[name])], of[name])
    beside["curves"] = {"steps": steps.tolist(), **{kind: one.mean((0, 2)).tolist() for kind, one in of.items()}}
    beside["end"] = float(end.mean())
    value = speed_interval(steps, end, of["miro"])
    return row(f"speedup_{name}", value, each, lab.scale.seeds, COMMAND, None, beside, PAPER.get(name), "x")


def geneval_row(
    lab: Lab,
    claim: str,
    ours: str,
    theirs: str = "baseline",
    seeds: Sequence[int] | None = None,
    target: float | None = None,
    paper: float | None = None,
) -> dict[str, Any]:
    """The world's check over its six tasks, at the end."""
    a, b = (lab.finales(kind, seeds) for kind in (ours, theirs))
    each = [overall(lab, right(x) - right(y)).value for x, y in zip(a, b)]
    means = [np.mean([right(one) for one in side], 0) for side in (a, b)]
    beside = {ours: overall(lab, means[0]), theirs: overall(lab, means[1])}
    return row(
        claim, overall(lab, means[0] - means[1]), each, seeds or lab.scale.seeds, COMMAND, target, beside, paper
    )


def right(finale: Mapping[str, torch.Tensor]) -> NDArray:
    """(P K,) float64: 1 where the check says so; where it failed, 0."""
    return np.nan_to_num(finale["scores"][:, column(CHECK)].double().numpy())


def overall(lab: Lab, values: NDArray) -> Interval:
    """The mean over the six tasks of the mean in each; values (P K,)."""
    return over_tasks(values, *task_codes(lab.repeated(lab.scale.each)))


def in_deviations(
    lab: Lab, ours: str, theirs: str, name: str, seeds: Sequence[int] | None = None
) -> tuple[Interval, list[float]]:
    """Mean paired difference of a judge in standard deviations of `theirs` over prompts and pictures, and by seed."""
    a, b = lab.finales(ours, seeds), lab.finales(theirs, seeds)
    deviation = torch.stack([one["scores"][:, column(name)] for one in b]).std()

    def difference(x: torch.Tensor, y: torch.Tensor) -> Interval:
        return paired_difference(*(side[:, column(name)] / deviation for side in (x, y)), lab.texts)

    each = [difference(x["scores"], y["scores"]).value for x, y in zip(a, b)]
    return difference(mean_scores(a), mean_scores(b)), each


def delta_row(
    lab: Lab, claim: str, ours: str, name: str, seeds: Sequence[int] | None = None, beside: Any = None
) -> dict[str, Any]:
    """Against the baseline."""
    value, each = in_deviations(lab, ours, "baseline", name, seeds)
    target = TARGET["reward_delta_min"] if claim.startswith("reward_delta") else None
    return row(claim, value, each, seeds or lab.scale.seeds, COMMAND, target, beside, unit=DEVIATIONS)


def reward_rows(lab: Lab) -> list[dict[str, Any]]:
    made = []
    for name in REWARDS:
        beside = {"alone": in_deviations(lab, name, "baseline", name, lab.seeds_of_ablations)[0]}
        made.append(delta_row(lab, f"reward_delta_{name}", "miro", name, beside=beside))
    worst = min(made, key=lambda one: one["value"])
    return [{**worst, "claim": "reward_delta_min"}, *made]


def spread(lab: Lab, kind: str) -> NDArray:
    """(P,) diversity of each prompt's pictures in the space held out, the mean over the seeds of ablations."""
    return np.mean([one["spread"].numpy() for one in lab.finales(kind, lab.seeds_of_ablations)], 0)


def diversity_rows(lab: Lab) -> list[dict[str, Any]]:
    """MIRO less filtering, and less the mean of those told one reward; the lower is the claim. One seed."""
    ours, prompts = spread(lab, "miro"), sorted({p.text for p in lab.prompts})
    others = {"filtered": spread(lab, "filtered"), "specialists": np.mean([spread(lab, n) for n in REWARDS], 0)}
    others["baseline"] = spread(lab, "baseline")
    found = {n: paired_difference(ours, other, prompts) for n, other in others.items()}
    value, seeds = min((found["filtered"], found["specialists"]), key=lambda one: one.value), lab.seeds_of_ablations
    return [row("diversity_delta", value, [value.value], seeds, COMMAND, 0.0, found, unit="cosine distance")]
