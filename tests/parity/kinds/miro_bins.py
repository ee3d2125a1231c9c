"""MIRO's bins as its release makes and reads them, and its guided Euler sampler with a linear network.

A table with a NaN is compared too: there the official edges are mostly NaN, and ours, made for parity, as well.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close

from tastemaker.data import official_bins as official
from tastemaker.generators.guidance import guide
from tastemaker.generators.samplers import euler

NEAR = 1e-6  # a score so near to an edge may fall on either side of it


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    figures = json.loads((folder / "expected.json").read_text())
    inputs, expected = (dict(np.load(folder / f"{name}.npz")) for name in ("inputs", "expected"))
    queries = torch.from_numpy(inputs["queries"])
    for name in expected:
        rule, _, table = name.removesuffix("/edges").partition("/")
        if name.endswith("/edges"):
            scores = torch.from_numpy(inputs[table])
            tables = {
                key: expected[f"{rule}/{table}/{key}"] for key in ("edges", "values", "query_bucket", "query_value")
            }
            yield from compare_bins(f"{rule}/{table}", rule_of(rule, config), scores, queries, tables)
    for run in figures.get("guidance", []):
        yield from compare_guided(run, inputs, expected)


def rule_of(rule, config):
    """(edges of scores, the B that levels are divided by)."""
    bins = config["num_bins"]
    if rule == "quantile":
        return lambda s: official.unique_quantile_edges(s, bins), bins
    if rule == "uniform":
        return lambda s: official.width_edges(s, bins), bins
    last, factor = (int(n) for n in rule.removeprefix("refined_").split("x"))
    return lambda s: official.refined_quantile_edges(s, bins, last, factor), bins + last * (factor - 1)


def compare_bins(tag, rule, scores, queries, expected) -> Iterator[Comparison]:
    make, bins = rule
    edges = make(scores)
    yield close(f"{tag}/edges", edges, expected["edges"], atol=1e-6)
    clear, clear_query = clear_of(scores, edges), clear_of(queries, edges)
    levels, found = official.level(scores, edges, bins), official.level(queries, edges, bins)
    yield close(f"{tag}/values", levels[clear], expected["values"][clear.numpy()], atol=1e-6)
    yield close(f"{tag}/query_value", found[clear_query], expected["query_value"][clear_query.numpy()], atol=1e-6)
    buckets = official.bucket(queries, edges)
    yield close(f"{tag}/query_bucket", buckets[clear_query], expected["query_bucket"][clear_query.numpy()])


def clear_of(scores, edges):
    """Which scores are an edge itself, or lie further from all edges than rounding moves one."""
    away = (scores[:, None] - edges[None]).abs()
    return ~((away > 0) & (away < NEAR)).any(1)


def compare_guided(run, inputs, expected) -> Iterator[Comparison]:
    gammas = torch.from_numpy(expected[f"{run['tag']}/gammas"])
    x, paths = torch.from_numpy(inputs["guid_x"]), expected[f"{run['tag']}/trajectory"]
    direction, weights = (torch.from_numpy(inputs[k]) for k in ("guid_d", "guid_w"))

    def network(y, gamma, targets):
        pull = sum(float(w) * targets[f"r{i}"] for i, w in enumerate(weights))
        return 0.4 * y + pull * (1 + gamma.view(-1, 1, 1, 1)) * direction

    yield close(f"{run['tag']}/0", x, paths[0], atol=1e-6, rtol=1e-5)
    for step in range(run["num_steps"]):
        strength = torch.full((len(x),), 1 + weight_of(run, step))

        def velocity(y, gamma, strength=strength):
            plus, minus = (network(y, gamma, run[side]) for side in ("positive", "negative"))
            return -guide(minus, plus, strength)  # the release's velocity points to noise

        now, then = (gammas[step + k].expand(len(x)) for k in (0, 1))
        x = euler(velocity, x, now, then, 0.0).mean
        yield close(f"{run['tag']}/{step + 1}", x, paths[step + 1], atol=1e-6, rtol=1e-5)


def weight_of(run, step: int) -> float:
    """w of v+ + w (v+ - v-) at a step; 0 outside the steps from start_step to end_step, both included."""
    end = run["num_steps"] if run["end_step"] is None else run["end_step"]
    if not run["start_step"] <= step <= end:
        return 0.0
    return run["cfg_rate"] * (2 * step / run["num_steps"] if run["guidance_type"] == "linear" else 1)
