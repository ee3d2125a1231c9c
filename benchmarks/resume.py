"""Kill -9 a training at random moments, go on, and compare the final weights with those of a run left alone.

    python -m benchmarks.resume [--kills 8]

A small tiny-flow is pretrained by `train pretrain` in a process of its own, a checkpoint every 4 steps. It is killed
at a random moment of its training and resumed, `--kills` times or until it has finished. Row written:
resume_difference, the number of weights that are not equal bit for bit. Exit code 1 where there is any, or where
nothing could be killed.
"""

from __future__ import annotations

import argparse
import functools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.rows import write
from tastemaker.weights import load_weights
from tastemaker.workflows import train

SETTINGS = ["steps=120", "batch_size=8", "size=32", "width=64", "depth=2", "compile=false", "sample_every=50"]


def run_training(folder: Path) -> None:
    """`train pretrain`, from the beginning or on from where the folder is; ends with FOLDER/model.safetensors."""
    torch.set_num_threads(1)
    train.follow = functools.partial(train.follow, every_steps=4)  # the command itself saves by the clock
    if (folder / "config.yaml").is_file():
        train.train_pretrain(resume=folder)
    else:
        train.train_pretrain(overrides=SETTINGS, out=folder)


def started(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "benchmarks.resume", "--train", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(folder: Path, kills: int) -> int:
    """How often the training was killed on the way before it finished."""
    rng, count = random.Random(0), 0
    while not (folder / "model.safetensors").is_file():
        child = started(folder)
        if count < kills:
            wait_for_a_step(folder, child)
            time.sleep(rng.uniform(0.0, 1.0))
            count += child.poll() is None
            child.kill()
        if child.wait() > 0:  # not a signal
            raise SystemExit(
                "the training ended with an error; run it alone: python -m benchmarks.resume --train DIR"
            )
    return count


def wait_for_a_step(folder: Path, child: subprocess.Popen) -> None:
    """Until the run has logged a step since this was called, or its process has ended."""
    log, before = folder / "metrics.jsonl", time.time()
    while child.poll() is None and not (log.is_file() and log.stat().st_mtime > before and log.stat().st_size):
        time.sleep(0.01)


def unequal(a: Path, b: Path) -> int:
    """Elements whose bits differ."""
    first, second = (load_weights(folder / "model.safetensors")[0] for folder in (a, b))
    return sum(int((first[k].view(torch.int32) != second[k].view(torch.int32)).sum()) for k in first)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        run_training(options.train)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        started(whole).wait()
        count = killed(broken, options.kills)
        apart = unequal(whole, broken)
    print(f"killed {count} times")
    write(
        name="resume_difference",
        ours=apart,
        other=0.0,
        other_is=f"a run left alone; ours was killed {count} times",
        ratio=float(apart),
        target="= 0",
        unit="weights",
        command="python -m benchmarks.resume",
    )
    return 1 if apart or not count else 0


if __name__ == "__main__":
    sys.exit(main())
