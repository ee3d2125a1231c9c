"""Fréchet distance, kernel distance and the precision/recall family on stored features.

expected.json names, per sub-case, which package gave each figure; the tolerances are those of the fixture's README.
Figures with a multiple of the identity added are not ours to reproduce: they must differ from the true distance.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from comparison import Comparison, close

from tastemaker.evaluation import kernel_distance as kd
from tastemaker.evaluation.frechet import Moments, frechet_distance, frechet_distance_of_features, merge
from tastemaker.evaluation.prdc import prdc, precision_recall

ABOUT_THE_DATA = {"scipy_max_imag_diag", "cov1_condition_or_rank", "max_abs_disagreement_f64_routes"}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    expected = json.loads((folder / "expected.json").read_text())
    for name, figures in expected.items():
        stored = np.load(folder / f"{name}.npz", allow_pickle=False)
        features = stored["features_1"], stored["features_2"]
        for figure, value in figures.items():
            if figure not in ABOUT_THE_DATA:
                yield from compare_figure(f"{name}/{figure}", figure, value, features, figures)


def compare_figure(what: str, figure: str, value, features, figures) -> Iterator[Comparison]:
    single = "_f32" in figure
    generated, real = (f.astype(np.float32 if single else np.float64) for f in features)
    if "svd_reference" in figure:
        yield from compare_reference(what, value, generated, real)
    elif "I_added" in figure:
        apart = frechet_distance(Moments.of(generated), Moments.of(real)) - value
        yield Comparison(f"{what} differs", 0.0, 0.0, "differs by > 1e-5", apart > 1e-5)
    elif re.search("_fid_|scipy_sqrtm|torchmetrics", figure):
        distance = frechet_distance(Moments.of(generated), Moments.of(real))
        yield close(what, distance, value, **distance_tolerance(figures, single))
    elif figure.startswith("kid_full"):
        yield from compare_kernel(what, value, generated, real, 2e-6 if single else 1e-11)
    elif match := re.match(r"torch_fidelity_kid_(\d+)x(\d+)_seed(\d+)", figure):
        yield from compare_subsets(what, value, generated, real, map(int, match.groups()), 2e-6 if single else 1e-11)
    elif figure.startswith("prdc"):
        for k, shares in value.items():
            yield from compare_shares(f"{what}/{k}", shares, prdc(real, generated, int(k)))
    elif match := re.match(r"torch_fidelity_prc_k(\d+)", figure):
        yield from compare_shares(what, value, precision_recall(real, generated, int(match[1])))
    else:
        yield Comparison(f"{what}: no check for this figure", np.inf, np.inf, "known", False)


def distance_tolerance(figures, single: bool) -> dict[str, float]:
    """float32 features 1e-6 relative; float64 1e-8, or where a covariance is (nearly) singular the packages' own
    spread, which the fixture states as 1e-7 and 2e-4 absolute."""
    data = figures.get("cov1_condition_or_rank", {})
    low, high = data.get("min_eig", 1.0), data.get("max_eig", 1.0)
    if low < 1e-12 * high:
        return {"atol": 2e-4}
    if low < 1e-5 * high:
        return {"atol": 1e-7, "rtol": 1e-6 if single else 0.0}
    return {"rtol": 1e-6 if single else 1e-8}


def compare_reference(what: str, value: float, a: np.ndarray, b: np.ndarray) -> Iterator[Comparison]:
    """The exact route is met by all of ours: from moments, in two halves merged, and from features."""
    parts = [[Moments.of(half) for half in np.array_split(x, 2)] for x in (a, b)]
    yield close(f"{what} moments", frechet_distance(Moments.of(a), Moments.of(b)), value, rtol=1e-6)
    yield close(f"{what} merged", frechet_distance(merge(parts[0]), merge(parts[1])), value, rtol=1e-6)
    yield close(f"{what} features", frechet_distance_of_features(a, b), value, rtol=1e-6)


def compare_kernel(what, value, a, b, atol) -> Iterator[Comparison]:
    n = value["n"]
    for name, expected in value.items():
        if name != "n":
            yield close(f"{what}/{name}", getattr(kd, name)(a[:n], b[:n]), expected, atol=atol)


def compare_subsets(what, value, a, b, numbers, atol) -> Iterator[Comparison]:
    subsets, size, seed = numbers
    rng = np.random.RandomState(seed)  # noqa: NPY002  (the draws of the other package)
    draws = [tuple(rng.choice(len(x), size, replace=False) for x in (a, b)) for _ in range(subsets)]
    found = kd.over_subsets(a, b, draws)
    yield close(f"{what}/mean", found.mean(), value["mean"], atol=atol)
    yield close(f"{what}/std", found.std(), value["std"], atol=atol)


def compare_shares(what, expected, ours) -> Iterator[Comparison]:
    for name, share in expected.items():
        yield close(f"{what}/{name}", ours[name], share, atol=1e-6)
