"""ImageReward's claims on the emoji world, with raters whose taste is known (Xu et al. 2023, arXiv 2304.05977).

    python -m evidence.imagereward [--quick] [--cache FOLDER]

1. A reward model learns from more and more votes, 300 to 137,010 as in the paper, and is measured against the
   ceiling: who knows every picture's worth foretells a vote no more often. Beside it: scorers that need no votes.
   Heads on frozen towers learn from each size; the largest then trains half of the towers too, and stands in both
   forms.
2. ReFL, DRaFT, RAFT, reward-weighted and filtered training follow the model of 17,790 votes. Raters compare each
   with the base on the same prompts and seeds; Frechet distance to clean drawings and diversity stand beside.

Raters see pixels only, and two of them agree on 65.3 % of pairs, as the paper's do. All figures are expectations over
the raters' known chances, so that only prompts, pictures and training vary: three seeds. Each training writes its
row under results/partial/ when it ends and is not done again; pictures and runs are kept in the cache (about 4 GB).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tastemaker import load_reward
from tastemaker.evaluation.intervals import bootstrap_mean, paired_difference
from tastemaker.records import Interval
from tastemaker.report.metrics import read_metrics
from tastemaker.workflows.files import write_json

from . import imagereward_model as model
from . import imagereward_tuning as tuning
from .imagereward_figure import draw_figure
from .rows import row, write_rows
from .simulated_pool import DRAWN, OWN, Pool, build

NAME = "imagereward"
RESULTS = Path(__file__).parent / "results"
COMMAND = "python -m evidence.imagereward"
FOLLOWED = 1186  # prompts whose votes made the model that is followed
SEEDS = (0, 1, 2)
MEASURED = {"drawn": DRAWN, "own": OWN}
SIZES = (20, 154, 1186, 9134)  # prompts of 15 pairs; the last are 137,010 votes, the paper has 136,892
PAPER = {"accuracy": 0.6514, "refl_win_rate": 0.5841}  # Table 4; Fig. 7


def once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row in the file, or made now and written."""
    if not path.is_file():
        write_json(path, make())
    return json.loads(path.read_text())


def seconds_of(run: Path) -> int:
    """Of its training steps."""
    return round(sum(record["seconds"] for record in read_metrics(run / "metrics.jsonl")))


def measured(pool: Pool, folder: Path) -> dict[str, list[float]]:
    """Each measured prompt's accuracy by the model in the folder, for both sets of MEASURED."""
    reward = load_reward(f"preference:{folder}")
    return {k: model.accuracies(pool, reward, rows).round(5).tolist() for k, rows in MEASURED.items()}


def curve(
    pool: Pool, read: Tensor, sizes: tuple[int, ...], seeds: tuple[int, ...], cache: Path, partial: Path
) -> dict[int, np.ndarray]:
    """Votes -> (S, 2, P): accuracies by the model of each seed, its towers frozen."""
    found: dict[int, np.ndarray] = {}
    for size in sizes:
        rows = []
        for seed in seeds:

            def learned(size: int = size, seed: int = seed) -> dict[str, Any]:
                folder = model.train(pool, read, size, seed, cache / f"model-{size}-{seed}")
                about = {"votes": size * model.PAIRS, "seed": seed, "seconds": seconds_of(folder)}
                return about | measured(pool, folder)

            kept = once(partial / f"{NAME}-votes-{size}-{seed}.json", learned)
            rows.append([kept[k] for k in MEASURED])
            print(f"{size * model.PAIRS} votes, seed {seed}: {np.mean(kept['drawn']):.4f}", flush=True)
        found[size * model.PAIRS] = np.array(rows)
    return found


def with_towers(pool: Pool, size: int, seeds: tuple[int, ...], cache: Path, partial: Path) -> np.ndarray:
    """(S, 2, P): as `curve`, after the towers were trained on the same votes as well."""
    rows = []
    for seed in seeds:

        def learned(seed: int = seed) -> dict[str, Any]:
            begun = cache / f"model-{size}-{seed}"
            folder = model.train_towers(pool, begun, size, seed, cache / f"towers-{size}-{seed}")
            about = {"votes": size * model.PAIRS, "seed": seed, "seconds": seconds_of(folder)}
            return about | measured(pool, folder)

        kept = once(partial / f"{NAME}-towers-{size}-{seed}.json", learned)
        rows.append([kept[k] for k in MEASURED])
        print(f"{size * model.PAIRS} votes, with the towers, seed {seed}: {np.mean(kept['drawn']):.4f}", flush=True)
    return np.array(rows)


def tune_all(pool: Pool, size: int, seeds: tuple[int, ...], cache: Path, partial: Path) -> dict[str, Any]:
    """Method -> its pictures by seed; `base` is one."""
    out: dict[str, Any] = {"base": tuning.drawn("tiny-flow", cache / "drawn-base"), "about": {}}
    for seed in seeds:
        for method in tuning.METHODS:
            folder = cache / f"{method}-{seed}"

            def trained(method: str = method, folder: Path = folder, seed: int = seed) -> dict[str, Any]:
                result = tuning.tuned(method, cache / f"model-{size}-{seed}", seed, folder)
                made = tuning.drawn(str(folder), cache / f"drawn-{method}-{seed}")
                won = tuning.wins(made, out["base"], pool.taste)
                return {
                    "method": method, "seed": seed, "win_rate": float(won.mean()), "steps": result["steps"],
                    "stopped_early": result["stopped_early"], "right": float(made.right.mean()),
                    "seconds": seconds_of(folder),
                }  # fmt: skip

            about = once(partial / f"{NAME}-{method}-{seed}.json", trained)
            print(f"{method}, seed {seed}: wins {about['win_rate']:.4f}, right {about['right']:.3f}", flush=True)
            out["about"].setdefault(method, []).append(about)
            out.setdefault(method, []).append(tuning.drawn(str(folder), cache / f"drawn-{method}-{seed}"))
    return out


def over_seeds(values: list[np.ndarray]) -> Interval:
    """The mean of (B,) rows of several seeds; prompts are resampled, all seeds of a prompt together."""
    texts = [p.text for p in tuning.compared()[0]]
    return bootstrap_mean(np.concatenate(values), np.tile(texts, len(values)))


def compare(pool: Pool, made: dict[str, Any]) -> dict[str, Any]:
    """Win rates over the base, ReFL beside each baseline, Frechet distances and diversity."""
    texts = [p.text for p in tuning.compared()[0]]
    base, real = made["base"], tuning.reference()
    won = {m: [tuning.wins(one, base, pool.taste) for one in made[m]] for m in tuning.METHODS}
    varied = np.arange(len(tuning.diversity(base)))
    found: dict[str, Any] = {}
    for method, rows in won.items():
        found[method] = {
            "win_rate": over_seeds(rows),
            "per_seed": [float(r.mean()) for r in rows],
            "refl_beside": paired_difference(np.mean(won["refl"], 0), np.mean(rows, 0), texts),
            "right": over_seeds([one.right.numpy() for one in made[method]]),
            "diversity_change": paired_difference(
                np.mean([tuning.diversity(one) for one in made[method]], 0), tuning.diversity(base), varied
            ),
            "frechet_change": {s: tuning.frechet_change(made[method], base, real, s) for s in tuning.SPACES},
            "seconds": [about["seconds"] for about in made["about"][method]],
        }
    found["base"] = {
        "right": bootstrap_mean(base.right.numpy(), texts),
        "diversity": bootstrap_mean(tuning.diversity(base), varied),
        "frechet": {s: tuning.frechet_distance_of_features(real[s], base.features[s]) for s in tuning.SPACES},
    }
    return found


def rows_of(
    learned: dict[int, np.ndarray],
    towers: np.ndarray,
    pool: Pool,
    compared: dict[str, Any],
    seeds: tuple[int, ...],
) -> list:
    rows = []
    for k, (kind, place) in enumerate(MEASURED.items()):
        best = model.best_accuracies(pool, place)
        by_votes = {n: list(found[:, k]) for n, found in learned.items()}
        grown = {
            str(n): {"accuracy": model.mean_of(found), "share": model.share_of(found, best)}
            for n, found in by_votes.items()
        }
        ceiling, last = model.mean_of([best]), list(towers[:, k])
        scorers = {
            name: model.mean_of([model.accuracies(pool, load(), place)]) for name, load in model.SCORERS.items()
        }
        shares = [float(found.mean() / best.mean()) for found in last]
        beside = {"votes": max(by_votes), "ceiling": ceiling, "towers_frozen": grown, "scorers": scorers}
        end = "" if kind == "drawn" else "_on_generated_pictures"
        share, accuracy = model.share_of(last, best), model.mean_of(last)
        target = 0.97 if kind == "drawn" else None
        rows += [
            row(f"reward_model_share_of_ceiling{end}", share, shares, seeds, COMMAND, target, beside),
            row(f"reward_model_accuracy{end}", accuracy, [float(f.mean()) for f in last], seeds, COMMAND, None,
                {"ceiling": ceiling, **scorers}, PAPER["accuracy"]),
        ]  # fmt: skip
    for method in tuning.METHODS:
        found = compared[method]
        target, paper = (0.60, PAPER["refl_win_rate"]) if method == "refl" else (None, None)
        beside = {k: v for k, v in found.items() if k not in ("win_rate", "per_seed")} | {"base": compared["base"]}
        rows.append(
            row(f"{method}_win_rate", found["win_rate"], found["per_seed"], seeds, COMMAND, target, beside, paper)
        )
    return rows


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="few votes, one seed; nothing is claimed")
    words.add_argument(
        "--cache", type=Path, default=Path("runs/imagereward"), help="where pictures and runs are kept"
    )
    given = words.parse_args()
    seeds, sizes = (SEEDS[:1], SIZES[:2]) if given.quick else (SEEDS, SIZES)
    partial = given.cache / "quick" if given.quick else RESULTS / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    pool = build(DRAWN.stop + round(1.1 * sizes[-1]), given.cache / "pictures")
    learned = curve(pool, model.read_pictures(pool, given.cache / "pictures"), sizes, seeds, given.cache, partial)
    towers = with_towers(pool, sizes[-1], seeds, given.cache, partial)
    compared = compare(pool, tune_all(pool, min(FOLLOWED, sizes[-1]), seeds, given.cache, partial))
    rows = rows_of(learned, towers, pool, compared, seeds)
    out = given.cache if given.quick else RESULTS
    write_rows(out / f"{NAME}.json", rows)
    draw_figure(json.loads((out / f"{NAME}.json").read_text()), out / f"{NAME}.png")
    print(f"wrote {out / NAME}.json and .png")


if __name__ == "__main__":
    main()
