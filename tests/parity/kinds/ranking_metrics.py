"""Pair accuracy, recall@k, filter@k and tie thresholds as the official scripts compute them on given scores.

A tie of the model counts as wrong there (model_tie 0). GenAI-Bench's "ignoring human ties" leaves pairs that both tie
among those counted; ours by default does not, and both are there.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
from comparison import Comparison, close

from tastemaker import correlation
from tastemaker.evaluation import preference as pf

TOLERANCE = 1e-12
OURS = {
    "recall_best_in_top_k": pf.best_in_top,
    "filter_worst_in_bottom_k": pf.worst_in_bottom,
    "recall_overlap_top_k": pf.top_overlap,
    "filter_overlap_bottom_k": pf.bottom_overlap,
}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    inputs, expected = (json.loads((folder / f"{name}.json").read_text()) for name in ("inputs", "expected"))
    yield from compare_accuracy(inputs, expected)
    yield from compare_hpsv2(inputs, expected["hpsv2_helpers"])
    for k, figures in expected["recall_filter"].items():
        yield from compare_at_k(int(k), inputs["recall_filter_table"], figures)
    yield from compare_flat(inputs["genai_flat"], expected["genai_bench"]["flat"])
    yield from compare_grouped(inputs["genai_grouped"], expected["genai_bench"]["grouped"])


def accuracy(ranks, scores) -> float:
    """Of one prompt; NaN where people tie every pair."""
    margins, preferences, _ = pf.pairs_of_rankings(scores, ranks, np.zeros(len(ranks), int))
    found = pf.hits(margins, preferences, model_tie=0.0)
    return float(np.nanmean(found)) if (~np.isnan(found)).any() else np.nan


def compare_accuracy(inputs, expected) -> Iterator[Comparison]:
    human = [item["ranking"] for item in inputs["imagereward_human"]]
    rewards = [item["rewards"] for item in inputs["imagereward_rewards"]]
    ids = np.repeat(np.arange(len(human)), [len(r) for r in human])
    pairs = pf.pairs_of_rankings(np.concatenate(rewards), np.concatenate(human), ids)
    ours = pf.pair_accuracy(*pairs, model_tie=0.0, resamples=2)
    yield close("imagereward_test_acc", ours.pooled.value, expected["imagereward_test_acc"], atol=TOLERANCE)
    each = [np.nan if v is None else v for v in expected["imagereward_acc_per_item"]]
    yield close("imagereward_acc_per_item", list(map(accuracy, human, rewards)), each, atol=TOLERANCE)


def compare_hpsv2(inputs, helpers) -> Iterator[Comparison]:
    for i, figures in enumerate(helpers):
        ranks, scores = inputs["imagereward_human"][i]["ranking"], inputs["imagereward_rewards"][i]["rewards"]
        ours = pf.inversion_score(figures["hps_rank0"], ranks)
        yield close(f"hpsv2_helpers[{i}]/inversion_score", ours, figures["inversion_score"], atol=TOLERANCE)
        expected = figures["calc_ImageReward"]
        expected = np.nan if expected is None else expected
        yield close(f"hpsv2_helpers[{i}]/calc_ImageReward", accuracy(ranks, scores), expected, atol=TOLERANCE)


def compare_at_k(k, table, figures) -> Iterator[Comparison]:
    for name, value in figures.items():
        ours = np.mean([OURS[name](row["scores"], row["human_rank"], k) for row in table])
        yield close(f"recall_filter/{k}/{name}", ours, value, atol=TOLERANCE)


def compare_flat(rows, figures) -> Iterator[Comparison]:
    human, metric = rows["human"], rows["metric"]
    at_0, at_05 = pf.tie_counts(human, metric), pf.tie_counts(human, metric, 0.05)
    ours = {
        "pearson_x100": 100 * correlation.pearson(human, metric),
        "kendall_tau_b": correlation.kendall(human, metric),
        "scipy_tau_b": correlation.kendall(human, metric),
        "kendall_tau_c": correlation.kendall_c(human, metric),
        "pairwise_acc_tie_opt": pf.best_tie_threshold(human, metric),
        "tau23_tie_opt": pf.best_tie_threshold(human, metric, "tau"),
        "pairwise_acc_ignore_tie": at_0.genai_bench[0],
        "acc23_eps0": at_0.accuracy[0],
        "acc23_eps_0_05": at_05.accuracy[0],
        "tau23_eps0": at_0.tau[0],
    }
    for name, value in figures.items():
        atol = 1e-10 if name == "pearson_x100" else TOLERANCE  # of 100 times a correlation
        yield close(f"genai_bench/flat/{name}", ours[name], value, atol=atol)


def compare_grouped(rows, figures) -> Iterator[Comparison]:
    human, metric = rows["human"], rows["metric"]
    taus = [correlation.kendall(h, m) for h, m in zip(human, metric)]
    ours = {"pairwise_acc_tie_opt": pf.best_tie_threshold(human, metric), "mean_tau_b_nanmean": np.nanmean(taus)}
    for name, value in figures.items():
        yield close(f"genai_bench/grouped/{name}", ours[name], value, atol=TOLERANCE)
