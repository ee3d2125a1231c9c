"""Targets for a generator that is told rewards: what the command line wishes for, which wishes pictures have met, and
a search over them that reports a front.

The search draws with every candidate on one part of the prompts, keeps those that no other beats on every reward, and
draws with these on the other part, where all figures that are reported come from: a candidate that was lucky on the
first part has no luck left on the second. Letters: P prompts, R rewards of the model, J judges, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..data.bins import from_description
from ..data.prompts import is_held_out
from ..errors import TastemakerError, expect
from ..evaluation.intervals import bootstrap_mean
from ..evaluation.pareto import non_dominated
from ..generators.reward_targets import (
    balanced_seen,
    nearest_seen,
    target_vector,
    with_caption_emptied,
    with_caption_kept,
)
from ..generators.told import Ask, ToldRewards
from ..protocols import Reward
from ..records import Prompt
from ..rewards.table import load_rewards
from ..sampling import sample, score
from ..world.grammar import evaluation_prompts
from .files import write_json
from .load import load_generator
from .sample import check_words, wanted_prompts

PER_TASK = 16  # prompts of each of the world's tasks, where none are given


@dataclass(frozen=True)
class Wish:
    """Levels in [0, 1] by reward. feasible: take those of the training picture that is nearest to the targets.
    empty_negative: the other branch has no caption, as in MIRO's release. keep_caption: it has the same one, as in
    MIRO's paper, and so where negative is given. With none of these it is the model's own way. targets None: nothing
    is asked."""

    targets: Mapping[str, float] | None = field(default_factory=dict)
    negative: Mapping[str, float] = field(default_factory=dict)
    feasible: bool = False
    empty_negative: bool = False
    keep_caption: bool = False


def told(generator: Any, model: str) -> ToldRewards:
    """Raises TastemakerError for a generator that is told no rewards."""
    if not isinstance(generator, ToldRewards):
        raise TastemakerError(f"'{model}' is told no rewards; targets need a model of `tastemaker train miro`")
    return generator


def asked(generator: ToldRewards, wish: Wish) -> ToldRewards:
    """The generator with these targets. A reward without a target is not asked for, in neither branch; one with a
    target and no negative is led away from the model's own poorest level. Without any target the model's own count.

    Raises UnknownName and TastemakerError as `target_vector` and `nearest_seen` do, and TastemakerError for a
    negative or a feasible place of no wish.
    """
    if wish.targets is None:
        if wish.negative or wish.feasible:
            raise TastemakerError("nothing is asked with targets 'none'; expected neither a negative nor feasible")
        return generator.unasked()
    positive = target_vector(wish.targets, generator.rewards) if wish.targets else generator.positive
    if wish.feasible:
        positive = nearest_seen(positive, generator.scale.seen)
    poorest = torch.where(positive.isnan(), positive, generator.negative)
    named = target_vector(wish.negative, generator.rewards)
    negative = torch.where(named.isnan(), poorest, named)
    return generator.asking(positive, negative, other_branch(wish))


def other_branch(wish: Wish) -> Ask | None:
    """None: the model's own way. Raises TastemakerError for a caption that is to be kept and emptied."""
    if wish.empty_negative and wish.keep_caption:
        raise TastemakerError("the other branch's caption cannot be both kept and emptied; give one of the two")
    if wish.empty_negative:
        return with_caption_emptied
    return with_caption_kept if wish.keep_caption or wish.negative else None


def asker(model: str, *wish: Any) -> Callable[[Any], ToldRewards]:
    """A loaded generator -> the same with the targets of a Wish."""
    return lambda generator: asked(told(generator, model), Wish(*wish))


def pareto_targets(seen: Tensor, count: int) -> Tensor:
    """(C, R), C <= count: levels (K, R) of training pictures that no other picture reached or beat on every reward.

    Of more than `count` the most balanced one, then each time the one farthest from all that are taken. Rows with a
    missing level are left out; raises TastemakerError where no row is whole.
    """
    expect(count >= 1, "a count of at least 1", count)
    taken = [balanced_seen(seen)]
    whole = seen[~seen.isnan().any(1)].unique(dim=0)
    front = whole[torch.from_numpy(non_dominated(whole.numpy()))]
    while len(taken) < min(count, len(front)):
        gaps = torch.cdist(front, torch.stack(taken)).amin(1)
        if gaps.max() == 0:
            break
        taken.append(front[gaps.argmax()])
    return torch.stack(taken)


def candidates(generator: ToldRewards, count: int) -> Tensor:
    """(C, R): `count` targets on the front of the training pictures, each reward's highest level alone, all of them
    at once, and no wish at all."""
    number = len(generator.rewards)
    alone = torch.where(torch.eye(number) > 0, 1.0, float("nan"))
    corner, nothing = torch.ones(1, number), torch.full((1, number), float("nan"))
    return torch.cat([pareto_targets(generator.scale.seen, count), alone, corner, nothing])


def split(prompts: Sequence[Prompt], share: float, seed: int = 0) -> tuple[list[Prompt], list[Prompt]]:
    """(to search on, held out): every text lies on one side. Raises TastemakerError where one has fewer than
    two."""
    out = [is_held_out(p.text, share, seed) for p in prompts]
    if min(sum(out), len(out) - sum(out)) < 2:
        raise TastemakerError(f"{len(prompts)} prompts leave one side of the search fewer than two; give more")
    return [p for p, o in zip(prompts, out) if not o], [p for p, o in zip(prompts, out) if o]


def drawn_scores(generator: ToldRewards, judges: Sequence[Reward], prompts: Sequence[Prompt], seed: int) -> Tensor:
    """(P, J), every candidate with the same seeds."""
    seeds = range(seed * 1_000_003, seed * 1_000_003 + len(prompts))
    return score(judges, sample(generator, prompts, seeds), prompts)


def search_targets(
    model: str,
    rewards: Sequence[str],
    words: Sequence[str],
    file: Path | None,
    count: int,
    out: Path,
    seed: int = 0,
    held_out: float = 0.5,
) -> Path:
    """OUT/front.json: each kept candidate with its targets, its mean rewards on the held-out prompts with intervals,
    and whether it still is on the front there; `notes` names rewards of another version than the model's. rewards:
    what is judged by, J names, those of the model or others."""
    generator = told(load_generator(model), model)
    prompts = wanted_prompts(words, file) if words or file else evaluation_prompts(PER_TASK, seed=2)
    check_words(generator, prompts)
    judges, (first, second) = load_rewards(rewards), split(prompts, held_out)
    notes = other_versions(generator, judges, model)
    for note in notes:
        Console(stderr=True).print(note, soft_wrap=True)
    wishes = candidates(generator, count)
    each = track(wishes, "drawing with every target", console=Console(stderr=True))
    means = [drawn_scores(wished(generator, wish), judges, first, seed).nanmean(0) for wish in each]
    kept = non_dominated(torch.stack(means).numpy())
    rows = []
    for k in track(kept.nonzero()[0].tolist(), "drawing on the prompts held out", console=Console(stderr=True)):
        found = drawn_scores(wished(generator, wishes[k]), judges, second, seed + 1)
        rows.append(row(generator, wishes[k], judges, means[k], found, second))
    report: dict[str, Any] = {"model": model, "rewards": [r.name for r in judges], "notes": notes}
    report["prompts"] = [len(first), len(second)]
    settled(rows)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "front.json", report | {"candidates": len(wishes), "front": rows})
    print_front(rows, [r.name for r in judges], len(second))
    return out / "front.json"


def other_versions(generator: ToldRewards, judges: Sequence[Reward], model: str) -> list[str]:
    """A sentence for each judge that is not of the version that the model was told in training."""
    trained = {b.reward: b.provenance for b in from_description(generator.scale.described, model)}
    return [
        f"{judge.name} is {judge.provenance}, but {model} was trained with {trained[judge.name]}: its targets are "
        "levels of that version"
        for judge in judges
        if trained.get(judge.name, judge.provenance) != judge.provenance
    ]


def wished(generator: ToldRewards, wish: Tensor) -> ToldRewards:
    """Targets (R,), NaN for none, with the negative that `asked` gives them."""
    said = {n: v for n, v in zip(generator.rewards, wish.tolist()) if v == v}
    return asked(generator, Wish(said or None))


def row(
    generator: ToldRewards,
    wish: Tensor,
    judges: Sequence[Reward],
    mean: Tensor,
    found: Tensor,
    prompts: Sequence[Prompt],
) -> dict[str, Any]:
    texts = [p.text for p in prompts]
    return {
        "targets": {n: round(v, 4) for n, v in zip(generator.rewards, wish.tolist()) if v == v},
        "searched": {r.name: float(v) for r, v in zip(judges, mean)},
        "held_out": {r.name: asdict(bootstrap_mean(column, texts)) for r, column in zip(judges, found.T)},
    }


def settled(rows: Sequence[dict[str, Any]]) -> None:
    """Say of each row whether it is on the front of the held-out prompts too."""
    points = [[one["value"] for one in r["held_out"].values()] for r in rows]
    for r, there in zip(rows, non_dominated(points).tolist()):
        r["on_front"] = there


def print_front(rows: Sequence[Mapping[str, Any]], judges: Sequence[str], prompts: int) -> None:
    from rich.table import Table

    table = Table("targets", *judges, "on the front", title=f"means on {prompts} prompts held out", box=None)
    for r in rows:
        said = ",".join(f"{n}={v:g}" for n, v in r["targets"].items()) or "nothing asked"
        cells = [f"{r['held_out'][n]['value']:.3f} ({r['held_out'][n]['low']:.3f}, {r['held_out'][n]['high']:.3f})"
                 for n in judges]  # fmt: skip
        table.add_row(said, *cells, "yes" if r["on_front"] else "no")
    Console(width=160).print(table)
