"""The searches of verification.py, each with its record: which kept pictures are right, and what it has cost.

Every search draws from the same seeds, so that all of one generator choose from the same paths as far as they go.
Letters: P prompts, N candidates of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.errors import TastemakerError
from tastemaker.evaluation.geneval import check_images
from tastemaker.evaluation.n_curve import reports_of
from tastemaker.evaluation.of_n import any_of, counts
from tastemaker.picture_bytes import as_bytes, from_bytes
from tastemaker.records import Ledger, Prompt
from tastemaker.rewards.table import load_rewards
from tastemaker.sampling import score
from tastemaker.search import best_of_n, halving, parm, prm
from tastemaker.search.selected import Selected, choose
from tastemaker.workflows.load import load_generator
from tastemaker.world.check import WorldCheck

from .verification_lab import Lab
from .verification_training import judge_of, policy, trained_how

FIRST_LOOK = 3 / 8  # share of the steps; what judges learn calls the first quarter not clear, the second half clear
FLOW = "flow"
RUNGS = (0.5, 0.7, 0.85)


class Answer:
    """A judge with another of its answers as the score."""

    differentiable, range = False, (0.0, 1.0)

    def __init__(self, judge: Any, question: str):
        self.judge, self.question = judge, question
        self.name, self.provenance = f"{judge.name}'s {question}", judge.provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,) of pictures that count as finished."""
        return getattr(self.judge, self.question)(images, prompts, torch.ones(len(images)))


class Staged:
    """One judge of previews, another of ends."""

    differentiable, range = False, (-float("inf"), float("inf"))

    def __init__(self, previews: Any, ends: Any):
        self.potential, self.score = previews.potential, ends.score
        self.name, self.provenance = f"{previews.name}+{ends.name}", ends.provenance


class Without:
    """A judge some of whose questions are not asked: the answer is yes, and costs nothing."""

    differentiable, range = False, (-float("inf"), float("inf"))

    def __init__(self, judge: Any, *lost: str):
        self.judge, self.lost, self.computed = judge, lost, 0
        self.name, self.provenance = f"{judge.name} without {' and '.join(lost)}", judge.provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return self._answer("score", images, prompts)

    def clear(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        return self._answer("clear", images, prompts, progress)

    def potential(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        return self._answer("potential", images, prompts, progress)

    def _answer(self, question: str, images: Tensor, *more: Any) -> Tensor:
        if question in self.lost:
            return torch.ones(len(images))
        self.computed += len(images)
        return getattr(self.judge, question)(images, *more)


def checked(images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """(B,) of 0 and 1: the world's check on (B, 3, H, W) in [0, 1]."""
    return check_images(WorldCheck().score, images.split(256), prompts)


def turns(lab: Lab, room: Any, generator: Any, verifier: Any, config: Any, seed: int, ledger: Ledger):
    """What the search gives, turn by turn, with the prompts of each."""
    config, met = replace(config, batch_size=lab.at_once), 0
    seeds = lab.picture_seeds(seed)
    for found in room.search(generator, verifier, lab.prompts, seeds, config, ledger):
        yield found, lab.prompts[met : met + len(found.chosen)]
        met += len(found.chosen)


def searched(lab: Lab, room: Any, generator: Any, verifier: Any, config: Any, seed: int) -> dict[str, Any]:
    """`right` (P,) of the pictures that the search kept, and its ledger."""
    ledger, kept = Ledger(), []
    for found, prompts in turns(lab, room, generator, verifier, config, seed, ledger):
        kept.append(checked(from_bytes(as_bytes(found.images)), prompts))
    return {"right": {"kept": torch.cat(kept).int().tolist()}, "ledger": ledger.as_dict(), "config": config}


# N finished candidates


def pool(lab: Lab, name: str, seed: int) -> dict[str, Any]:
    """N whole paths of a policy, or of tiny-flow, and what each judge of ends keeps of them; the ledger is that of
    best-of-N with the fine-tuned ORM."""

    def make() -> dict[str, Any]:
        generator = load_generator("tiny-flow") if name == FLOW else policy(lab, name, seed)
        judges = outcome_judges(lab, seed, name)
        ledger, config, rows = Ledger(), best_of_n.Config(lab.scale.n), []
        for found, prompts in turns(lab, best_of_n, generator, judges["orm"], config, seed, ledger):
            rows.append(judged(found, prompts, judges))
        scores = {key: torch.cat([one[key] for one in rows]) for key in rows[0]}
        how = {} if name == FLOW else trained_how(lab, name, seed)
        check = scores.pop("check")
        first = {str(n): favourite(scores["orm"][:, :n], check).int().tolist() for n in lab.scale.counts}
        return chosen_of(check, scores) | {"first": first, "ledger": ledger.as_dict(), "training": how}

    return lab.once(f"pool-{name}-{seed}", make)


def outcome_judges(lab: Lab, seed: int, name: str) -> dict[str, Any]:
    """Zero-shot by tiny-clip, and fine-tuned; PARM's judge where its previews are asked too."""
    found = {"orm_zero_shot": load_rewards(["alignment"])[0], "orm": judge_of(lab, "orm", seed)}
    return found if name == FLOW else found | {"parm": judge_of(lab, "parm", seed)}


def judged(found: Selected, prompts: Sequence[Prompt], judges: dict[str, Any]) -> dict[str, Tensor]:
    """(B, N) by each judge, and by the check."""
    count = found.scores.shape[1]
    pictures, asked = from_bytes(found.pictures).flatten(0, 1), [p for p in prompts for _ in range(count)]
    table = score(list(judges.values()), pictures, asked, batch=256)  # (B N, judges)
    columns = dict(zip(judges, table.T)) | {"check": checked(pictures, asked)}
    return {name: column.reshape(-1, count) for name, column in columns.items()}


def chosen_of(check: Tensor, scores: dict[str, Tensor]) -> dict[str, Any]:
    """What becomes of N candidates (P, N) by each judge: the kept one, the curve over N with every choice of the
    candidates counted, and how often a right one is ranked above a wrong one. `plain`: the share of all N that is
    right, which is what one picture is worth; `any`: by one who always knows."""
    check = check.double()
    right = {name: favourite(own, check).int().tolist() for name, own in scores.items()}
    curves = {name: curve(own, check) for name, own in scores.items()}
    curves["any"] = {str(n): rounded([any_of(row, n) for row in check.tolist()]) for n in counts(check.shape[1])}
    ranks = {name: rank_accuracy(own, check) for name, own in scores.items()}
    return {"right": {"plain": curves["any"]["1"]} | right, "curves": curves, "rank_accuracy": ranks}


def favourite(scores: Tensor, check: Tensor) -> Tensor:
    """(P,) of check (P, N): of those that the scores (P, n) choose."""
    return check[torch.arange(len(check)), choose(scores).clamp_min(0)]


def curve(select: Tensor, report: Tensor) -> dict[str, list[float]]:
    """n -> (P,)."""
    return {str(n): rounded(values) for n, values in reports_of(select, report).items()}


def rounded(values: Any) -> list[float]:
    return [round(float(v), 4) for v in values]


def rank_accuracy(scores: Tensor, check: Tensor) -> float | None:
    """The share of pairs of a right and a wrong candidate of one prompt in which the right one scores higher; an
    equal score counts half. None where there is no such pair."""
    apart = scores[:, :, None] - scores[:, None]  # (P, N, N)
    pairs = (check[:, :, None] == 1) & (check[:, None] == 0)
    won = (apart > 0).double() + 0.5 * (apart == 0).double()
    return float(won[pairs].mean()) if pairs.any() else None


# searches on the way


def parm_config(n: int, **more: Any) -> parm.Config:
    return parm.Config(n, **({"first_look": FIRST_LOOK} | more))


def parm_of(lab: Lab, name: str, seed: int, n: int | None = None) -> dict[str, Any]:
    """PARM with the judge of the seed on a policy; n: N where it is not the scale's."""
    n = n or lab.scale.n

    def make() -> dict[str, Any]:
        generator, verifier = policy(lab, name, seed), judge_of(lab, "parm", seed)
        return searched(lab, parm, generator, verifier, parm_config(n), seed)

    return lab.once(f"parm-{name}-{n}-{seed}", make)


def best_of(lab: Lab, n: int, seed: int) -> dict[str, Any]:
    """Best-of-n of the base with the fine-tuned ORM: of the pool's first n paths, each of which costs the same."""
    whole = pool(lab, "base", seed)
    return {"right": {"kept": whole["first"][str(n)]}, "ledger": scaled(whole["ledger"], n / lab.scale.n)}


def scaled(ledger: dict[str, Any], share: float) -> dict[str, Any]:
    return {name: scaled(v, share) if isinstance(v, dict) else v * share for name, v in ledger.items()}


def halved(lab: Lab, n: int, seed: int) -> dict[str, Any]:
    """Successive halving of the base's paths by the PRM's potential; the ORM takes one of the ends."""

    def make() -> dict[str, Any]:
        verifier = Staged(judge_of(lab, "prm", seed), judge_of(lab, "orm", seed))
        return searched(lab, halving, lab.generator(), verifier, halving.Config(n, rungs=RUNGS), seed)

    return lab.once(f"halving-{n}-{seed}", make)


def step_by_step(lab: Lab, kind: str, seed: int) -> dict[str, Any]:
    """PRM: `prm_zero_shot` with tiny-clip, `prm` with the one that learned."""

    def make() -> dict[str, Any]:
        verifier = judge_of(lab, "prm", seed) if kind == "prm" else load_rewards(["alignment"])[0]
        return searched(lab, prm, lab.generator(), verifier, prm.Config(lab.scale.n), seed)

    return lab.once(f"{kind}-{seed}", make)


EVERY = {"least_clarity": 0.0, "first_look": 0.0}  # all previews count as clear
PARTS: dict[str, Callable[[Any, int], tuple[Any, Any, Any]]] = {
    # PARM's judge, N -> search, verifier, settings: each of its three answers alone, PARM without one, other manners
    "clarity_alone": lambda judge, n: (best_of_n, Answer(judge, "clear"), best_of_n.Config(n)),
    "potential_alone": lambda judge, n: (parm, Without(judge, "clear", "score"), parm_config(n, **EVERY)),
    "best_of_alone": lambda judge, n: (best_of_n, judge, best_of_n.Config(n)),
    "without_clarity": lambda judge, n: (parm, Without(judge, "clear"), parm_config(n, **EVERY)),
    "without_best_of": lambda judge, n: (parm, Without(judge, "score"), parm_config(n)),
    "asked_every_step": lambda judge, n: (parm, judge, parm_config(n, first_look=0.0)),
    "as_released": lambda judge, n: (parm, judge, parm_config(n, first_look=0.0, prune=False)),
}


def part_of(lab: Lab, name: str, seed: int) -> dict[str, Any]:
    """One of `PARTS` on the base."""

    def make() -> dict[str, Any]:
        room, verifier, config = PARTS[name](judge_of(lab, "parm", seed), lab.scale.n)
        return searched(lab, room, lab.generator(), verifier, config, seed)

    return lab.once(f"part-{name}-{seed}", make)


def total_flops(found: dict[str, Any]) -> float:
    """Of generator, decoder and verifier."""
    return sum(found["ledger"]["flops_by_part"].values())


def cost_of(records: Sequence[dict[str, Any]], pictures: int) -> dict[str, Any]:
    """Of each kept picture, over the records of every seed; pictures: P."""
    count = len(records) * pictures
    ledgers = [one["ledger"] for one in records]

    def mean(take: Callable[[dict[str, Any]], float]) -> float:
        return sum(map(take, ledgers)) / count

    parts = ledgers[0]["seconds_by_part"]
    return {
        "network_evaluations": mean(lambda one: one["network_evaluations"]),
        "verifier_calls": mean(lambda one: one["verifier_calls"]),
        "gflops": {p: mean(lambda one, p=p: one["flops_by_part"].get(p, 0.0)) / 1e9 for p in parts},
        "seconds": {p: mean(lambda one, p=p: one["seconds_by_part"].get(p, 0.0)) for p in parts},
        "paths": mean(lambda one: one["paths"]),
        "pruned": mean(lambda one: one["pruned"]),
    }


def flops_per_picture(records: Sequence[dict[str, Any]], pictures: int) -> float:
    return float(np.sum([total_flops(one) for one in records])) / (len(records) * pictures)


def seconds_per_picture(records: Sequence[dict[str, Any]], pictures: int) -> float:
    return float(np.sum([one["ledger"]["seconds"] for one in records])) / (len(records) * pictures)


def mean_curve(records: Sequence[dict[str, Any]], name: str) -> dict[int, NDArray]:
    """n -> (P,), the mean over the seeds."""
    found = [one["curves"][name] for one in records]
    return {int(n): np.mean([one[n] for one in found], 0) for n in found[0]}


def require_none_after_pruning(records: Sequence[dict[str, Any]]) -> int:
    """How many paths were cut off. Raises TastemakerError where one has cost anything after that."""
    spent = sum(one["ledger"]["evaluations_after_pruning"] for one in records)
    if spent:
        raise TastemakerError(f"paths that were cut off have cost {spent} network evaluations more")
    return sum(one["ledger"]["pruned"] for one in records)
