"""Real human scores: how well pixels and prompt alone say which picture people prefer.

    python -m evidence.human_preference --data PATH [--quick] [--cache FOLDER]

PATH: AGIQA-3K (Li et al., TCSVT 2023), a folder with ratings.csv (file, prompt, generator, setting, mos_quality,
mos_align) and its pictures. Models learn from the scores of some prompts and are measured on pairs of pictures of
the others: five folds by prompt, three seeds, every pair once a seed.

The confound to report always: which generator made a picture says much about its score. The baseline that knows the
generator's name, and no pixels, is beside every figure; with a generator left out of training (and its prompts too)
no such knowledge helps. Each finished run writes its row under results/partial/ and is not made again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.data.ratings import RatingsTable, read_ratings
from tastemaker.evaluation.intervals import spearman
from tastemaker.evaluation.preference import mean_correlation, pair_accuracy
from tastemaker.records import Interval
from tastemaker.workflows.files import write_json

from . import human_models as models
from .human_features import Features, read_features
from .human_figure import draw
from .rows import row, write_rows

NAME = "human_preference"
RESULTS = Path(__file__).parent / "results"
TARGETS = {"quality": 0.79, "alignment": 0.72}  # same-prompt pair accuracy that is asked for
FOLDS = 5
SEEDS = (0, 1, 2)
RESAMPLES = 2000


@dataclass(frozen=True)
class Data:
    """N pictures. prompts, generators, settings (N,): integers; scores: by target."""

    table: RatingsTable
    features: Features
    kernels: models.Kernels
    prompts: NDArray
    generators: NDArray
    settings: NDArray
    names: dict[str, list[str]]  # of generators and settings

    @classmethod
    def of(cls, table: RatingsTable, features: Features) -> Data:
        generators, which = np.unique(table.generators, return_inverse=True)
        settings, setting = np.unique(table.settings, return_inverse=True)
        prompts = np.unique(table.prompt_ids, return_inverse=True)[1]
        names = {"generators": generators.tolist(), "settings": settings.tolist()}
        return cls(table, features, models.Kernels.of(features), prompts, which, setting, names)


def test_folds(data: Data, seed: int) -> list[NDArray]:
    """Rows of each fold, by prompt."""
    order = np.random.default_rng(seed).permutation(data.prompts.max() + 1)
    return [np.flatnonzero(np.isin(data.prompts, order[k::FOLDS])) for k in range(FOLDS)]


Model = Callable[[Data, NDArray, NDArray, str], NDArray]  # (data, scores, training rows, target) -> (N,)


def by_prompt(data: Data, scores: NDArray, target: str, seed: int, model: Model) -> NDArray:
    """(N,): each picture's score from a model that saw none of its prompt."""
    found = np.zeros(len(scores))
    for test in test_folds(data, seed):
        train = np.setdiff1d(np.arange(len(scores)), test)
        found[test] = model(data, scores, train, target)[test]
    return found


def left_out(data: Data, scores: NDArray, target: str, seed: int, model: Model) -> NDArray:
    """(G, N): as `by_prompt`, from models that saw nothing of generator g either."""
    rows = []
    for g in range(len(data.names["generators"])):
        found = np.zeros(len(scores))
        for test in test_folds(data, seed):
            train = np.setdiff1d(np.flatnonzero(data.generators != g), test)
            found[test] = model(data, scores, train, target)[test]
        rows.append(found)
    return np.stack(rows)


# figures


def pairs(data: Data) -> tuple[NDArray, NDArray]:
    """Every two pictures of a prompt."""
    found = [
        pair for p in range(data.prompts.max() + 1) for pair in combinations(np.flatnonzero(data.prompts == p), 2)
    ]
    first, second = np.array(found).T
    return first, second


def preference(scores: NDArray, a: NDArray, b: NDArray) -> NDArray:
    return (1 + np.sign(scores[a] - scores[b])) / 2


def accuracy_of(data: Data, scores: NDArray, found: NDArray) -> Interval:
    """Pooled pair accuracy. found (S, N): a row per seed; the interval resamples prompts, with every seed's hits."""
    a, b = pairs(data)
    margins = np.concatenate([one[a] - one[b] for one in found])
    said, prompts = np.tile(preference(scores, a, b), len(found)), np.tile(data.prompts[a], len(found))
    return pair_accuracy(margins, said, prompts, resamples=RESAMPLES).pooled


def left_out_margins(data: Data, found: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Pairs with a picture of a generator that the model never saw: margin, a, b and that generator. found (G, N)."""
    a, b = pairs(data)
    parts = []
    for g, one in enumerate(found):
        rows = np.flatnonzero((data.generators[a] == g) | (data.generators[b] == g))
        parts.append((one[a[rows]] - one[b[rows]], a[rows], b[rows], np.full(len(rows), g)))
    return tuple(np.concatenate(column) for column in zip(*parts))  # type: ignore[return-value]


def left_out_accuracy(data: Data, scores: NDArray, found: NDArray, only: int | None = None) -> Interval:
    """found (S, G, N). only: pairs with this generator's pictures."""
    margins, a, b, g = (np.concatenate(v) for v in zip(*(left_out_margins(data, one) for one in found)))
    kept = slice(None) if only is None else g == only
    said = preference(scores, a, b)
    return pair_accuracy(margins[kept], said[kept], data.prompts[a][kept], resamples=RESAMPLES).pooled


def own(data: Data, found: NDArray) -> NDArray:
    """(N,): each picture's score from the model that never saw its generator. found (G, N)."""
    return found[data.generators, np.arange(found.shape[1])]


# runs


def run(data: Data, target: str, seed: int, protocol: str, folder: Path) -> NDArray:
    """Scores of one run, (N,) or (G, N), read from its row where it is there."""
    path = folder / f"{NAME}-{target}-{protocol}-{seed}.json"
    if path.is_file():
        return np.array(json.loads(path.read_text())["scores"])
    start, scores = time.time(), data.table.score(target)
    found = {"prompts": by_prompt, "left-out": left_out}[protocol](
        data, scores, target, seed, models.pixels_and_prompt
    )
    if protocol == "prompts":
        measured = accuracy_of(data, scores, found[None])
    else:
        measured = left_out_accuracy(data, scores, found[None])
    about = {"claim": f"{target} {protocol}", "seed": seed, **asdict(measured), "seconds": round(time.time() - start)}
    write_json(path, about | {"scores": found.round(4).tolist()})
    print(
        f"{target}, {protocol}, seed {seed}: {measured.value:.4f} ({measured.low:.4f}, {measured.high:.4f})",
        flush=True,
    )
    return found


def measure(data: Data, seeds: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """All figures with what stands beside them."""
    out: dict[str, Any] = {}
    for target in TARGETS:
        scores = data.table.score(target)
        found = np.stack([run(data, target, seed, "prompts", folder) for seed in seeds])
        unseen = np.stack([run(data, target, seed, "left-out", folder) for seed in seeds])
        said = [by_prompt(data, scores, target, seed, models.generator_only) for seed in seeds]
        ridge = [by_prompt(data, scores, target, seed, models.plain_ridge) for seed in seeds]
        out[target] = {
            "pixels": accuracy_of(data, scores, found),
            "per_seed": [accuracy_of(data, scores, one[None]).value for one in found],
            "left_out": left_out_accuracy(data, scores, unseen),
            "left_out_per_seed": [left_out_accuracy(data, scores, one[None]).value for one in unseen],
            "left_out_by_generator": {
                name: left_out_accuracy(data, scores, unseen, g) for g, name in enumerate(data.names["generators"])
            },
            "generator_only": accuracy_of(data, scores, np.stack(said)),
            "ridge": accuracy_of(data, scores, np.stack(ridge)),
            "clip_like": accuracy_of(data, scores, data.features.fit[None]),
            "spearman": spearman(found.mean(0), scores, data.prompts, RESAMPLES),
            "spearman_left_out": spearman(own(data, unseen.mean(0)), scores, data.prompts, RESAMPLES),
            "ranking": ranking(data, scores, found.mean(0)),
            "ranking_per_seed": [ranking(data, scores, one).value for one in found],
            "ranking_left_out": ranking(data, scores, own(data, unseen.mean(0))),
            "ranking_clip_like": ranking(data, scores, data.features.fit),
            "ranking_frechet": frechet_ranking(data, scores),
        }
    return out


def ranking(data: Data, scores: NDArray, found: NDArray) -> Interval:
    """Spearman over the generator settings' means, prompts resampled."""
    return mean_correlation(found, scores, data.settings, data.prompts, RESAMPLES)


def frechet_ranking(data: Data, scores: NDArray) -> Interval:
    """Spearman of minus each setting's Frechet distance to ImageNet with people's means, prompts resampled."""
    groups = data.prompts.max() + 1
    rng = np.random.default_rng(0)
    whole = models.frechet_correlation(data, scores, np.ones(groups))
    drawn = [
        models.frechet_correlation(data, scores, rng.multinomial(groups, np.full(groups, 1 / groups)))
        for _ in range(300)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(whole), float(low), float(high), len(data.names["settings"]))


def rows_of(figures: dict[str, Any], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """The claims, as evidence/rows.py has them; what stands beside each is in `beside`."""
    command = "python -m evidence.human_preference --data PATH"
    rows = []
    for target, asked in TARGETS.items():
        found = figures[target]
        beside = {k: found[k] for k in ("generator_only", "ridge", "clip_like", "spearman")}
        rows.append(row(f"{target}_pair_accuracy", found["pixels"], found["per_seed"], seeds, command, asked, beside))
        beside = {k: found[k] for k in ("left_out_by_generator", "spearman_left_out", "generator_only")}
        name = f"{target}_left_out_generator"
        rows.append(row(name, found["left_out"], found["left_out_per_seed"], seeds, command, None, beside))
    for target, prefix in (("quality", ""), ("alignment", "alignment_")):
        found = figures[target]
        beside = {k.removeprefix("ranking_"): found[k] for k in found if k.startswith("ranking_") and "per" not in k}
        name = f"{prefix}generator_ranking_spearman"
        rows.append(row(name, found["ranking"], found["ranking_per_seed"], seeds, command, None, beside))
    return rows


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="AGIQA-3K: a folder with ratings.csv")
    words.add_argument("--quick", action="store_true", help="one seed, nothing is claimed")
    words.add_argument("--cache", type=Path, default=Path("runs/human_preference"), help="where features are kept")
    given = words.parse_args()
    table = read_ratings(given.data)
    features = read_features(table, given.cache / "features")
    assert features is not None
    data = Data.of(table, features)
    seeds = SEEDS[:1] if given.quick else SEEDS
    partial = given.cache / "quick" if given.quick else RESULTS / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    figures = measure(data, seeds, partial)
    rows = rows_of(figures, seeds)
    out = given.cache if given.quick else RESULTS
    write_rows(out / f"{NAME}.json", rows)
    draw(figures, TARGETS, out / f"{NAME}.png")
    print(f"wrote {out / NAME}.json and .png")


if __name__ == "__main__":
    torch.set_num_threads(max(1, torch.get_num_threads()))
    main()
