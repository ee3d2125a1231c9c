"""Fréchet distance beside the route of clean-fid (np.mean, np.cov, scipy.linalg.sqrtm of the product), float64.

    python -m benchmarks.frechet [--dim 2048] [--rows 50000] [--threads 2]

Both sides run in this process, in turn, on the very same features and with as many threads; the least of `--repeats`
runs counts. Rows written: frechet_speedup (from moments), frechet_speedup_from_features, and
frechet_error (largest relative difference of the two, and for singular covariances from the reference by singular
values of the centred features).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


OPTIONS = parse() if __name__ == "__main__" else argparse.Namespace(dim=2048, rows=50_000, threads=2, repeats=3)
if "numpy" not in sys.modules:  # linear algebra reads these once, when it is loaded
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(OPTIONS.threads)

import numpy as np  # noqa: E402
import scipy.linalg  # noqa: E402

from benchmarks.rows import write  # noqa: E402
from tastemaker.evaluation.frechet import Moments, frechet_distance  # noqa: E402


def features(rows: int, dim: int, seed: int) -> np.ndarray:
    """(rows, dim) float64 with a spectrum that falls over two decades and non-negative skew, as pooled ones have."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).standard_normal((dim, dim), np.float32) / dim**0.5
    scales = np.logspace(0, -1, dim, dtype=np.float32) * (1 + 0.05 * seed)
    x = rng.standard_normal((rows, dim), np.float32)
    x *= scales
    x = x @ mixing
    x += 0.02 * seed
    return np.maximum(x, 0.1 * x).astype(np.float64)


def other_from_moments(a: tuple, b: tuple) -> float:
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    shift = mean_a - mean_b
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(np.real(root)))


def other_moments(x: np.ndarray) -> tuple:
    return x.mean(0), np.cov(x, rowvar=False)


def reference(a: np.ndarray, b: np.ndarray) -> float:
    """By singular values of the centred features themselves; for few rows."""
    x, y = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (a.astype(np.float64), b.astype(np.float64)))
    apart = ((a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)) ** 2).sum() + (x**2).sum() + (y**2).sum()
    return float(apart - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum())


def in_turn(ours: Callable, other: Callable, repeats: int) -> tuple[tuple[float, float], tuple]:
    """The least seconds of each, run alternately, and what they returned."""
    least, values = [float("inf")] * 2, [None] * 2
    for _ in range(repeats):
        for i, run in enumerate((ours, other)):
            start = time.perf_counter()
            values[i] = run()
            least[i] = min(least[i], time.perf_counter() - start)
    return (least[0], least[1]), (values[0], values[1])


def main() -> None:
    command = f"python -m benchmarks.frechet --dim {OPTIONS.dim} --rows {OPTIONS.rows} --threads {OPTIONS.threads}"
    a, b = (features(OPTIONS.rows, OPTIONS.dim, seed) for seed in (1, 2))
    (ours_fit, other_fit), (mine, theirs) = in_turn(
        lambda: [Moments.of(x) for x in (a, b)], lambda: [other_moments(x) for x in (a, b)], OPTIONS.repeats
    )
    seconds, (distance, expected) = in_turn(
        lambda: frechet_distance(*mine), lambda: other_from_moments(*theirs), OPTIONS.repeats
    )
    whole = (other_fit + seconds[1]) / (ours_fit + seconds[0])
    other = "scipy.linalg.sqrtm of the product of covariances, as in clean-fid"
    write(
        name="frechet_speedup",
        ours=seconds[0],
        other=seconds[1],
        other_is=other,
        ratio=seconds[1] / seconds[0],
        target=">= 10 from moments",
        unit="s",
        command=command,
    )
    write(
        name="frechet_speedup_from_features",
        ours=ours_fit + seconds[0],
        other=other_fit + seconds[1],
        other_is=f"np.mean, np.cov and {other}",
        ratio=whole,
        target=">= 3",
        unit="s",
        command=command,
    )
    few = [x[: OPTIONS.dim // 4] for x in (a, b)]
    singular, truth = frechet_distance(*map(Moments.of, few)), reference(*few)
    worst = max(abs(distance / expected - 1), abs(singular / truth - 1))
    print(f"full rank: ours {distance:.12g}, sqrtm {expected:.12g}; rank {len(few[0]) - 1}: ours {singular:.12g}, "
          f"reference {truth:.12g}")  # fmt: skip
    write(
        name="frechet_error",
        ours=worst,
        other=1e-6,
        other_is="the largest difference allowed",
        ratio=worst / 1e-6,
        target="<= 1e-6",
        unit="relative",
        command=command,
    )


if __name__ == "__main__":
    main()
