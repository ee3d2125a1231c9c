"""How often the checks are right on pictures that a generator made: python -m benchmarks.checks

    python -m benchmarks.checks --draw FOLDER   # draw the sample anew; FOLDER gets sheets to read
    python -m benchmarks.checks                 # compare both checks with the labels

The sample is committed: benchmarks/checked/pictures.png holds 300 drawings of tiny-flow, fifty of each task, and
labels.csv what a reader saw, before looking at any detector: 1 where the picture shows what the prompt asks by the
rules of the world (object, count, colour, relation; nothing more of the asked kind in a counting prompt), 0 where
not, ? where the reader could not tell; these are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import tastemaker as tm
from tastemaker.data.grid import save_grid
from tastemaker.evaluation.intervals import wilson
from tastemaker.records import Prompt
from tastemaker.world.check import LABELS, SCORES, check
from tastemaker.world.grammar import TASKS, evaluation_prompts

FOLDER = Path(__file__).with_name("checked")
PER_TASK, COLUMNS, SIDE = 50, 20, 64


def draw(sheets: Path) -> None:
    rows = {t: [p for p in evaluation_prompts(PER_TASK, seed=7) if p.spec["tag"] == t] for t in TASKS}
    prompts = [rows[t][k % len(rows[t])] for t in TASKS for k in range(PER_TASK)]
    seeds = range(10_000, 10_000 + len(prompts))
    images = tm.sample(tm.load_generator("tiny-flow"), prompts, seeds)
    FOLDER.mkdir(exist_ok=True)
    whole = images.unflatten(0, (-1, COLUMNS)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (15 H, 20 W, 3)
    Image.fromarray((whole.clamp(0, 1).numpy() * 255).round().astype(np.uint8)).save(FOLDER / "pictures.png")
    with (FOLDER / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("prompt", "spec", "seed", "label"))
        writer.writerows((p.text, json.dumps(p.spec), s, "") for p, s in zip(prompts, seeds))
    for k, task in enumerate(TASKS):
        own = slice(k * PER_TASK, (k + 1) * PER_TASK)
        captions = [f"{i}: {p.text.removeprefix('a photo of ')}" for i, p in enumerate(prompts[own])]
        save_grid(images[own], sheets / f"{task}.png", captions, columns=10)


def sample() -> tuple[Tensor, list[Prompt], list[str]]:
    """(B, 3, H, W), prompts and labels."""
    with (FOLDER / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = torch.from_numpy(np.asarray(Image.open(FOLDER / "pictures.png")).astype(np.float32) / 255)
    images = whole.unflatten(0, (-1, SIDE)).unflatten(2, (-1, SIDE)).permute(0, 2, 4, 1, 3).flatten(0, 1)
    return images, [Prompt(r["prompt"], spec=json.loads(r["spec"])) for r in rows], [r["label"] for r in rows]


def share(hits: Tensor) -> str:
    found = wilson(int(hits.sum()), len(hits))
    return f"{found.value:.3f} ({found.low:.3f}, {found.high:.3f}) of {found.count}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw the sample anew; sheets go there")
    said = parser.parse_args()
    if said.draw:
        return draw(said.draw)
    images, prompts, labels = sample()
    told = torch.tensor([label in "01" and label != "" for label in labels])
    right = torch.tensor([label == "1" for label in labels])[told]
    tasks = np.array([p.spec["tag"] for p in prompts])[told.numpy()]
    print(f"{int(told.sum())} of {len(labels)} pictures could be judged; {int(right.sum())} are right\n")
    print("| generated pictures | detector-a | detector-b |\n|---|---|---|")
    found = [torch.tensor([v.correct for v in check(images, prompts, d)])[told] for d in (LABELS, SCORES)]
    lines = {
        "says what the reader says": [f == right for f in found],
        "accepts a right picture": [f[right] for f in found],
        "accepts a wrong picture": [f[~right] for f in found],
    } | {
        f"says what the reader says, {t}": [(f == right)[torch.from_numpy(tasks == t)] for f in found] for t in TASKS
    }
    for name, hits in lines.items():
        print(f"| {name} | {share(hits[0])} | {share(hits[1])} |")
    return None


if __name__ == "__main__":
    main()
