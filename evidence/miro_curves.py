"""miro.py, first part: MIRO beside the baseline, one reward alone and hard filtering, at equal training.

Speed-up is the paper's: the steps of the whole baseline run over the steps after which MIRO, asked for high levels,
has the value that the baseline ends with, interpolated between looks. It mixes how fast is learned with the shift of
what is drawn; so the same generator with nothing asked stands beside it, guided as the baseline is: that is like for
like. Letters: S seeds, T looks, P prompts, K pictures of a prompt at the end, J judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.evaluation.diversity import per_prompt
from tastemaker.evaluation.geneval import over_tasks, task_codes
from tastemaker.evaluation.intervals import bootstrap, paired_difference
from tastemaker.records import Interval

from .miro_lab import CHECK, COMMAND, REWARDS, Lab, column, mean_scores
from .rows import row

PAPER = {"preference": 6.3, "alignment": 3.5}  # HPSv2, and PickScore and ImageReward; Aesthetic 19
TARGET = {"speedup_min": 3.5, "speedup_max": 19.0, "geneval_delta": 0.10, "reward_delta_min": 0.0}


def rows(lab: Lab) -> list[dict[str, Any]]:
    found = [*speed_rows(lab), geneval_row(lab, "geneval_delta", "miro", "baseline", TARGET["geneval_delta"])]
    found += [*reward_rows(lab), *diversity_rows(lab), *filtering_rows(lab)]
    synthetic = ("miro-synthetic", "baseline-synthetic")
    return [*found, geneval_row(lab, "geneval_delta_synthetic", *synthetic, None, lab.seeds_of_ablations)]


def looks(lab: Lab, kind: str, name: str = "scores") -> NDArray:
    """(S, T, P, J)."""
    return np.stack([lab.trained(lab.run(kind, seed))[name].numpy() for seed in lab.scale.seeds])


def crossing(steps: NDArray, curve: NDArray, level: float) -> float:
    """The step at which the curve (T,) first has the level, linear between looks; inf where it never has it. Before
    the first look it is not known better than that look."""
    if curve[0] >= level:
        return float(steps[0])
    for a, b, low, high in zip(steps, steps[1:], curve, curve[1:]):
        if low < level <= high:
            return float(a + (b - a) * (level - low) / (high - low))
    return float("inf")


def speedup(steps: NDArray, baseline: NDArray, other: NDArray) -> float:
    """baseline, other (T,); 0 where the other never gets there."""
    return float(steps[-1]) / crossing(steps, other, float(baseline[-1]))


def speed_interval(steps: NDArray, baseline: NDArray, other: NDArray) -> Interval:
    """baseline, other (S, T, P): of the mean over seeds; prompts are resampled, the same for both."""
    base, ours = baseline.mean(0), other.mean(0)  # (T, P)

    def statistic(picked: NDArray, which: NDArray, count: int) -> NDArray:
        return np.array(
            [speedup(steps, *(c[:, picked[which == k]].mean(1) for c in (base, ours))) for k in range(count)]
        )

    return bootstrap(statistic, np.arange(base.shape[1]))


def speed_rows(lab: Lab) -> list[dict[str, Any]]:
    steps = np.array(lab.look_steps(), np.float64)
    baseline, ours, unasked = looks(lab, "baseline"), looks(lab, "miro"), looks(lab, "miro", "unasked")
    made = {}
    for name in REWARDS:
        j = column(name)
        each = [speedup(steps, b.mean(1), o.mean(1)) for b, o in zip(baseline[..., j], ours[..., j])]
        fair = speed_interval(steps, baseline[..., j], unasked[..., j])
        beside = {"nothing_asked": fair, "curves": curves(steps, baseline, ours, unasked, j)}
        value = speed_interval(steps, baseline[..., j], ours[..., j])
        made[name] = row(f"speedup_{name}", value, each, lab.scale.seeds, COMMAND, None, beside, PAPER.get(name), "x")
    ordered = sorted(made.values(), key=lambda one: one["value"])
    ends = [(ordered[0], "speedup_min", 3.5), (ordered[-1], "speedup_max", 19.0)]
    return [{**one, "claim": c, "target": TARGET[c], "paper": p} for one, c, p in ends] + list(made.values())


def curves(steps: NDArray, baseline: NDArray, ours: NDArray, unasked: NDArray, j: int) -> dict[str, Any]:
    """Means over seeds and prompts, look by look."""
    named = {"baseline": baseline, "asked": ours, "nothing_asked": unasked}
    return {"steps": steps.tolist(), **{n: c[..., j].mean((0, 2)).tolist() for n, c in named.items()}}


def geneval_row(
    lab: Lab, claim: str, ours: str, theirs: str, target: float | None, seeds: Sequence[int] | None = None
) -> dict[str, Any]:
    """The world's check over its six tasks, at the end."""
    a, b = ([one["scores"][:, column(CHECK)].numpy() for one in lab.finales(kind, seeds)] for kind in (ours, theirs))
    tasks, groups = task_codes(lab.repeated(lab.scale.each))

    def overall(values: NDArray) -> Interval:
        return over_tasks(np.nan_to_num(values.astype(np.float64)), tasks, groups)

    each = [overall(x - y).value for x, y in zip(a, b)]
    beside = {ours: overall(np.mean(a, 0)), theirs: overall(np.mean(b, 0))}
    value = overall(np.mean(a, 0) - np.mean(b, 0))
    return row(
        claim, value, each, seeds or lab.scale.seeds, COMMAND, target, beside, 0.046 if seeds is None else 0.107
    )


def in_deviations(lab: Lab, ours: str, theirs: str, name: str) -> tuple[Interval, list[float]]:
    """Mean paired difference of a reward in standard deviations of `theirs` over prompts and pictures."""
    j, found = column(name), []
    a, b = lab.finales(ours), lab.finales(theirs)
    for x, y in zip([*a, {"scores": mean_scores(a)}], [*b, {"scores": mean_scores(b)}]):
        deviation = torch.stack([one["scores"][:, j] for one in b]).std()
        columns = (x["scores"][:, j] / deviation, y["scores"][:, j] / deviation)
        found.append(paired_difference(*columns, lab.texts))
    return found[-1], [one.value for one in found[:-1]]


def reward_rows(lab: Lab) -> list[dict[str, Any]]:
    made = []
    for name in REWARDS:
        value, each = in_deviations(lab, "miro", "baseline", name)
        alone = in_deviations(lab, name, "baseline", name)[0]
        made.append(row(f"reward_delta_{name}", value, each, lab.scale.seeds, COMMAND, 0.0, {"alone": alone}))
    worst = min(made, key=lambda one: one["value"])
    found = [{**one, "unit": "standard deviations of the baseline"} for one in (worst, *made)]
    return [{**found[0], "claim": "reward_delta_min"}, *found[1:]]


def spread(lab: Lab, kind: str) -> NDArray:
    """(P,) diversity of each prompt's pictures in the space held out, mean over seeds."""
    return np.mean([per_prompt(one["features"].numpy(), lab.texts) for one in lab.finales(kind)], 0)


def diversity_rows(lab: Lab) -> list[dict[str, Any]]:
    """MIRO less filtering, and less the mean of those told one reward; the claim is the lower of the two."""
    ours, prompts = spread(lab, "miro"), sorted({p.text for p in lab.prompts})
    others = {"filtered": spread(lab, "filtered"), "specialists": np.mean([spread(lab, n) for n in REWARDS], 0)}
    found = {n: paired_difference(ours, other, prompts) for n, other in others.items()}
    least = min(found, key=lambda n: found[n].value)
    beside = {**found, "baseline": paired_difference(ours, spread(lab, "baseline"), prompts)}
    return [row("diversity_delta", found[least], [], lab.scale.seeds, COMMAND, 0.0, beside, unit="cosine distance")]


def filtering_rows(lab: Lab) -> list[dict[str, Any]]:
    """What hard filtering gains on each reward, and on the check that it was not filtered by."""
    found = []
    for name in (*REWARDS, CHECK):
        value, each = in_deviations(lab, "filtered", "baseline", name)
        found.append(row(f"filtering_delta_{name}", value, each, lab.scale.seeds, COMMAND,
                         unit="standard deviations of the baseline"))  # fmt: skip
    return found
