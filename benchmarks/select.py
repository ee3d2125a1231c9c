"""Prompt selection at scale: seconds and peak memory of vote-k on random embeddings, groups of 20,000.

    python -m benchmarks.select [--rows 100000] [--dim 384] [--count 1000] [--k 150] [--group 20000]

The embeddings lie in a file that is read a group at a time, as a million of them would. Peak memory is what the
system reports for the process. Nothing is compared: the bare similarities alone (the matrix products of the same
blocks) are measured beside it, and their share of the time is printed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from tastemaker.annotate.select import COLUMNS, ROWS, select_prompts


def store(path: Path, rows: int, dim: int) -> np.ndarray:
    """Random rows around 1,000 centres, written a block at a time; a memory map."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, dim), np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dim))
    for start in range(0, rows, ROWS):
        part = out[start : start + ROWS]
        part[:] = centres[rng.integers(1000, size=len(part))] + rng.standard_normal(part.shape, np.float32)
    out.flush()
    return np.load(path, mmap_mode="r")


def products(embeddings: np.ndarray, group: int) -> float:
    """Seconds of the similarities of one group."""
    x = np.asarray(embeddings[:group])
    start = time.perf_counter()
    for top in range(0, len(x), ROWS):
        for left in range(0, len(x), COLUMNS):
            x[top : top + ROWS] @ x[left : left + COLUMNS].T
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100_000), ("dim", 384), ("count", 1000), ("k", 150), ("group", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        embeddings = store(Path(folder, "embeddings.npy"), options.rows, options.dim)
        start = time.perf_counter()
        picks = select_prompts(embeddings, options.count, options.k, options.group)
        seconds = time.perf_counter() - start
        groups = -(-options.rows // options.group)
        bare = products(embeddings, options.group) * groups
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(picks)} of {options.rows} prompts x {options.dim} in {seconds:.1f} s, peak {peak:.0f} MB")
    print(f"the matrix products alone: {bare:.1f} s ({bare / seconds:.0%}); a million prompts at this pace: "
          f"{seconds / options.rows * 1e6 / 60:.1f} min")  # fmt: skip


if __name__ == "__main__":
    main()
