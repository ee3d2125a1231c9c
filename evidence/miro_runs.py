"""The trainings of miro.py, several at a time, for a machine on which one leaves processors or a GPU idle.

    python -m evidence.miro_runs --at-once 8 [--quick] [--cache FOLDER]

Trains what is not there yet, each run in a process of its own, and goes on where one was cut; `python -m
evidence.miro` with the same cache then finds them. A run is the same whichever way it was trained, but for rounding
with another number of threads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tastemaker.allocator import keep_freed_memory

from .miro_judges import REWARDS
from .miro_lab import QUICK, Lab
from .parts import RESULTS

KINDS = ("baseline", "miro")
ABLATIONS = ("filtered", *REWARDS, "weighted", "miro-synthetic", "baseline-synthetic")


def runs(lab: Lab) -> Iterator[tuple[str, int]]:
    yield from ((kind, seed) for seed in lab.scale.seeds for kind in KINDS)
    yield from ((kind, seed) for seed in lab.seeds_of_ablations for kind in ABLATIONS)


def lab_of(cache: Path, quick: bool) -> Lab:
    """Where `python -m evidence.miro` has its own."""
    small = cache / "quick"
    lab = Lab(small, small / "partial", QUICK) if quick else Lab(cache, RESULTS / "partial")
    for folder in (lab.cache, lab.partial):
        folder.mkdir(parents=True, exist_ok=True)
    return lab


def apart(words: list[str], kind: str, seed: int, threads: int) -> int:
    """The exit status of a process that trains this one run."""
    command = [sys.executable, "-m", "evidence.miro_runs", *words, "--only", f"{kind}:{seed}"]
    few = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    status = subprocess.run(command, env={**os.environ, **few}).returncode
    print(f"{kind}-{seed}: {'trained' if status == 0 else f'ended with status {status}'}", flush=True)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="as of evidence.miro")
    parser.add_argument("--cache", type=Path, default=Path("runs/miro"), help="as of evidence.miro")
    parser.add_argument("--only", help="KIND:SEED, one run in this process")
    given = parser.parse_args()
    keep_freed_memory()
    lab = lab_of(given.cache, given.quick)
    if given.only:
        kind, _, seed = given.only.rpartition(":")
        lab.measured(kind, int(seed))
        return 0
    len(lab.scored)  # drawn and scored once, before the others read them
    words = ["--cache", str(given.cache), *(["--quick"] if given.quick else [])]
    threads = max(1, (os.cpu_count() or 1) // given.at_once)
    with ThreadPoolExecutor(given.at_once) as pool:
        return max(pool.map(lambda run: apart(words, run[0], run[1], threads), runs(lab)))


if __name__ == "__main__":
    sys.exit(main())
