"""The emoji world's own figures: how right the checks are, how long a scene takes, what a picture of it is.

    python -m benchmarks.world [--scenes 2000] [--picture docs/pictures/world.png]

For each detector: the share of scenes in which the check says what is true, on clean ones and on each kind of
degraded ones, and the share in which it accepts a prompt with one fact changed (a false accept); Wilson's 95 %
intervals. The scenes' seeds are none that a detector was trained on. Printed as Markdown; the time of a scene is
written as a row, render_ms.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import write
from tastemaker.data.grid import save_grid
from tastemaker.evaluation.intervals import wilson
from tastemaker.randomness import mix, stream
from tastemaker.records import Interval, Prompt
from tastemaker.weights import shipped
from tastemaker.world.check import LABELS, RATERS, SCORES, check
from tastemaker.world.dataset import noisy_world
from tastemaker.world.degrade import KINDS
from tastemaker.world.grammar import TASKS, prompt_of, spec_of, swapped
from tastemaker.world.scenes import compose, draw

SEED = 909_090


def scenes(count: int) -> tuple[list[np.ndarray], list[Prompt], list[Prompt], list[int]]:
    """Clean pictures, their prompts, prompts with one fact changed, and seeds; tasks in turn."""
    seeds = [mix(SEED, k) for k in range(count)]
    specs = [spec_of(seed, TASKS[k % len(TASKS)]) for k, seed in enumerate(seeds)]
    pictures = [draw(compose(spec, seed)) for spec, seed in zip(specs, seeds)]
    changed = [prompt_of(swapped(spec, seed)) for spec, seed in zip(specs, seeds)]
    return pictures, [prompt_of(spec) for spec in specs], changed, seeds


def stacked(pictures: Sequence[np.ndarray]) -> Tensor:
    """(B, 3, H, W)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def accepted(images: Tensor, prompts: Sequence[Prompt], detector: str) -> list[bool]:
    return [v.correct for v in check(images, prompts, detector)]


def told(interval: Interval) -> str:
    return f"{interval.value:.4f} ({interval.low:.4f}, {interval.high:.4f})"


def print_checks(count: int) -> None:
    pictures, prompts, changed, seeds = scenes(count)
    detectors = [name for name in (LABELS, SCORES, RATERS) if shipped(name).is_file()]
    kinds = {"clean": stacked(pictures)}
    for kind in KINDS:
        spoilt = [kind(p, stream(seed, purpose=kind.__name__)) for p, seed in zip(pictures, seeds)]
        kinds[kind.__name__] = stacked(spoilt)
    print(f"| {count} scenes each | " + " | ".join(detectors) + " |\n|---|" + "---|" * len(detectors))
    for kind, images in kinds.items():
        right = [wilson(sum(accepted(images, prompts, d)), count) for d in detectors]
        print(f"| true prompt accepted, {kind} | " + " | ".join(map(told, right)) + " |", flush=True)
    wrong = [wilson(sum(accepted(kinds["clean"], changed, d)), count) for d in detectors]
    print("| one fact changed and still accepted, clean | " + " | ".join(map(told, wrong)) + " |", flush=True)
    for task in TASKS:
        rows = [k for k in range(count) if TASKS[k % len(TASKS)] == task]
        own = [prompts[k] for k in rows]
        right = [wilson(sum(accepted(kinds["clean"][rows], own, d)), len(rows)) for d in detectors]
        print(f"| true prompt accepted, clean, {task} | " + " | ".join(map(told, right)) + " |", flush=True)


def milliseconds(count: int = 2000) -> float:
    """The median of making a scene and drawing it, after sprites have been resized once (a cache holds them)."""
    specs = [(spec_of(mix(SEED, k)), mix(SEED, k)) for k in range(count)]
    for spec, seed in specs:
        draw(compose(spec, seed))
    times = []
    for spec, seed in specs:
        began = time.process_time()
        draw(compose(spec, seed))
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def save_picture(path: str, rows: int = 4, columns: int = 8) -> None:
    """The first pictures of the noisy mix, as they come; under each its caption, and in brackets what is wrong."""
    world, images, captions = noisy_world(), [], []
    for k in range(rows * columns):
        found = world.example(k)
        wrong = [] if found.caption.text == found.truth.text else ["wrong caption"]
        flaws = ", ".join(wrong + ([found.degraded.replace("_", " ")] if found.degraded else []))
        images.append(torch.from_numpy(found.picture).permute(2, 0, 1))
        captions.append(found.caption.text.removeprefix("a photo of ") + (f" [{flaws}]" if flaws else ""))
    save_grid(images, path, captions, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--picture", help="also write a sheet of the noisy mix")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.picture:
        save_picture(options.picture)
    took = milliseconds()
    write(
        name="render_ms",
        ours=took,
        other=1.0,
        other_is="the longest time allowed",
        ratio=took,
        target="<= 1",
        unit="ms",
        command="python -m benchmarks.world",
    )
    print_checks(options.scenes)


if __name__ == "__main__":
    main()
