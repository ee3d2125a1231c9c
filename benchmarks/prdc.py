"""Precision, recall, density and coverage beside the `prdc` package: seconds, peak memory, and equal values.

    python -m benchmarks.prdc [--rows 20000] [--dim 768] [--threads 2] [--float64]

Each side runs in a process of its own, one after the other, on the same float32 (or float64) features and with as
many threads; peak memory is what the system reports for the process, imports and features included. (The package
starts 8 threads of its own for distances; they share the cores that there are.) Rows written: prdc_speedup,
prdc_memory_ratio. Exit code 1 where a value differs by more than 1e-12.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.rows import write


def features(rows: int, dim: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated (rows, dim): clusters of unequal width, the generated ones narrower and shifted."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, dim)) * 0.5
    sides = ((1.0, 0.0), (0.97, 0.02))
    pairs = [centres[rng.integers(50, size=rows)] + s * rng.standard_normal((rows, dim)) + m for s, m in sides]
    return pairs[0].astype(kind), pairs[1].astype(kind)


def run_side(side: str, real: np.ndarray, generated: np.ndarray, threads: int) -> dict[str, float]:
    if side == "ours":
        import torch

        from tastemaker.evaluation.prdc import prdc

        torch.set_num_threads(threads)
        return prdc(real, generated, 5)
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return {name: float(value) for name, value in compute_prdc(real, generated, 5).items()}


def measure(options: argparse.Namespace) -> None:
    """In the process of one side: print seconds, peak memory in MB and values as JSON."""
    real, generated = features(options.rows, options.dim, "float64" if options.float64 else "float32")
    run_side(options.side, real[:50], generated[:50], options.threads)  # imports and threads are ready
    start = time.perf_counter()
    values = run_side(options.side, real, generated, options.threads)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "values": values}))


def started(side: str, threads: int) -> dict:
    """The same command for one side in a fresh process."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "benchmarks.prdc", *sys.argv[1:], "--side", side]
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--side", choices=("ours", "other"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options)
        return 0
    ours, other = started("ours", options.threads), started("other", options.threads)
    command = " ".join(["python -m benchmarks.prdc", *sys.argv[1:]])
    for name, key, target, unit in (
        ("prdc_speedup", "seconds", ">= 4", "s"),
        ("prdc_memory_ratio", "peak", ">= 5", "MB"),
    ):
        write(
            name=name,
            ours=ours[key],
            other=other[key],
            other_is="compute_prdc of the prdc package",
            ratio=other[key] / ours[key],
            target=target,
            unit=unit,
            command=command,
        )
    gap = max(abs(ours["values"][name] - value) for name, value in other["values"].items())
    print(f"values {ours['values']}, largest difference {gap:.1e}")
    return 0 if gap <= 1e-12 else 1


if __name__ == "__main__":
    sys.exit(main())
