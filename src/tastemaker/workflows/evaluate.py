"""`tastemaker evaluate`: figures with intervals, into a run folder with its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.prompts import read_prompts
from ..errors import TastemakerError
from ..evaluation import drift as drifts
from ..evaluation.frechet import Moments, frechet_distance
from ..evaluation.geneval import GenEval, compare, geneval
from ..evaluation.kernel_distance import subset_mean, unbiased
from ..evaluation.prdc import prdc
from ..report.runs import write_reports
from ..sampling import sample
from ..world.check import WorldCheck, require_specs
from ..world.grammar import evaluation_prompts
from .load import load_generator
from .runs import Run, make_room
from .sample import check_words, crossed
from .score import group_by_size, list_jobs

SUBSET = 1000  # pictures in a subset of the kernel distance, as its paper has it


@dataclass(frozen=True)
class Settings:
    """What was measured; kept as the run's config.yaml."""

    what: str
    on: str
    against: str = ""
    prompts: str = ""
    seeds: tuple[int, ...] = ()
    seed: int = 0


def evaluate_geneval(
    model: str, against: str | None, prompts: Path | None, seeds: Sequence[int], out: Path, per_task: int = 25
) -> Path:
    """One model's score per task, or two models' and their paired difference. Returns the page."""
    make_room(out)
    rows = read_prompts(prompts) if prompts else evaluation_prompts(per_task)
    require_specs(rows)
    wanted, numbers = crossed(rows, seeds)
    names = [against, model] if against else [model]
    generators = {name: load_generator(name) for name in names}
    for generator in generators.values():
        check_words(generator, rows)
    correct = {n: WorldCheck().score(sample(g, wanted, numbers), wanted) for n, g in generators.items()}
    result: dict[str, Any] = {
        name: {"label": name, "geneval": geneval_figures(geneval(wanted, right))} for name, right in correct.items()
    }
    if against:
        result["differences"] = {
            model: {"geneval": geneval_figures(compare(wanted, correct[model], correct[against]))}
        }
    settings = Settings("geneval", model, against or "", str(prompts or "embedded"), tuple(seeds))
    return finish(out, settings, result)


def geneval_figures(found: GenEval) -> dict[str, Any]:
    """overall first, then the tasks and the pooled share, as intervals."""
    named = {"overall": found.overall, **found.tasks, "pooled": found.pooled}
    return {name: asdict(interval) for name, interval in named.items()}


def set_distances(real: Any, generated: Any, space: str, k: int = 5) -> dict[str, dict[str, Any]]:
    """Fréchet distance, and what `neighbour_figures` gives."""
    distance = frechet_distance(Moments.of(generated), Moments.of(real))
    return {"frechet": {space: distance}, **neighbour_figures(real, generated, space, k)}


def neighbour_figures(real: Any, generated: Any, space: str, k: int = 5) -> dict[str, dict[str, Any]]:
    """What needs features (N, D) and (M, D): kernel distance and, where there are enough pictures, precision, recall,
    density, coverage and the kernel distance over subsets."""
    few = min(len(real), len(generated))
    found: dict[str, dict[str, Any]] = {"kernel_distance": {space: float(unbiased(generated, real))}}
    if few >= SUBSET:
        name = f"{space}, 100 subsets of {SUBSET}"
        found["kernel_distance"][name] = asdict(subset_mean(generated, real, SUBSET))
    if few > k:
        found["prdc"] = {f"{space} {name}": value for name, value in prdc(real, generated, k).items()}
    return found


def evaluate_drift(images: Path, reference: Path, out: Path) -> Path:
    """How far each figure of evaluation/drift.py has moved. Returns the page."""
    make_room(out)
    after, before = figures_of(images), figures_of(reference)
    ids = {name: list(range(len(next(iter(v.values()))))) for name, v in (("after", after), ("before", before))}
    moved = drifts.drift(before, ids["before"], after, ids["after"])
    result = {
        "before": {"label": reference.name, "drift": _means(before)},
        "after": {"label": images.name, "drift": _means(after)},
        "differences": {"after": {"drift": {name: asdict(i) for name, i in moved.items()}}},
    }
    return finish(out, Settings("drift", str(images), str(reference)), result)


def figures_of(path: Path) -> dict[str, Tensor]:
    """Of every picture that can be read; the others are named."""
    errors: dict[int, str] = {}
    parts = [drifts.figures(images) for _, images in group_by_size(list_jobs(path), 64, {}, errors)]
    for reason in errors.values():
        print(f"left out: {reason}")
    if not parts:
        raise TastemakerError(f"{path} has no readable pictures to measure")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _means(figures: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in figures.items()}


def finish(out: Path, settings: Any, result: Mapping[str, Any], weights: Mapping[str, str] | None = None) -> Path:
    """Write the run, its result and its page, now that all is measured; returns the page. settings: a dataclass."""
    run = Run.create(out, settings, weights=weights)
    run.write_result(result)
    return write_reports([run.folder])[0]
