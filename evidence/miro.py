"""MIRO's claims on the emoji world (Dufour et al. 2025, arXiv 2510.25897): train once with all rewards as conditions.

    python -m evidence.miro [--quick] [--parts curves,selection,targets,tuned] [--cache FOLDER]

A small tiny-flow learns from nothing on the noisy world, told the levels of four rewards or none of them. What is
claimed has three seeds; the parts `targets` and `tuned`, and the runs with synthetic captions, have one and are
exploratory. What no run is told: the world's own check, and diversity in EfficientNet-lite0's space.

curves     rewards over training, the steps to the baseline's end, the end itself beside one reward alone, hard
           filtering and the baseline; GenEval's tasks by the world's check, also with half synthetic captions
selection  best-of-N of MIRO and the baseline
targets    each reward's target from 0 to 1; a front of targets
tuned      the baseline tuned by ReFL on one reward

A finished run keeps its model and looks in the cache, and one that was cut goes on where it was left. Parts keep
their rows there, and results/miro.json holds those of all parts that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tastemaker.allocator import keep_freed_memory
from tastemaker.workflows.files import write_json

from . import miro_curves, miro_selection, miro_targets, miro_tuned
from .miro_figure import draw_figure
from .miro_lab import QUICK, Lab
from .rows import write_rows

NAME = "miro"
RESULTS = Path(__file__).parent / "results"
PARTS = {
    "curves": miro_curves.rows,
    "selection": miro_selection.rows,
    "targets": miro_targets.rows,
    "tuned": miro_tuned.rows,
}


def lab_of(quick: bool, cache: Path) -> Lab:
    if quick:
        return Lab(cache / "quick", cache / "quick" / "partial", QUICK)
    return Lab(cache, RESULTS / "partial")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="one seed, a few steps of each run; nothing is claimed")
    words.add_argument("--parts", default=",".join(PARTS), help="which, with commas; all by default")
    words.add_argument("--cache", type=Path, default=Path("runs/miro"), help="where pictures and runs are kept")
    given = words.parse_args()
    unknown = set(given.parts.split(",")) - set(PARTS)
    if unknown:
        words.error(f"expected parts among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    keep_freed_memory()
    lab = lab_of(given.quick, given.cache)
    for folder in (lab.cache, lab.partial):
        folder.mkdir(parents=True, exist_ok=True)
    for part in given.parts.split(","):
        write_rows(lab.cache / f"{NAME}-{part}.json", PARTS[part](lab))
    made = [lab.cache / f"{NAME}-{part}.json" for part in PARTS]
    rows = [one for file in made if file.is_file() for one in json.loads(file.read_text())]
    out = lab.cache if given.quick else RESULTS
    write_json(out / f"{NAME}.json", rows)
    draw_figure(rows, out / f"{NAME}.png")
    print(f"wrote {out / NAME}.json and .png")


if __name__ == "__main__":
    main()
