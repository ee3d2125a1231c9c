"""FK steering's weights, what lines carry on, ESS decisions. Theirs weighs by exp(lambda r), kept in [0, 1e10]; which
particles a draw took is given, since it is a matter of the random stream."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close, equal

from tastemaker.search.particles import Lineage, difference, due, latest, maximum, total, weigh

POTENTIALS = {"diff": difference, "max": maximum, "add": total, "rt": latest, "is": latest}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    rewards = torch.from_numpy(np.load(folder / "inputs.npz")["rewards"])  # (T, K)
    for run in json.loads((folder / "expected.json").read_text()):
        name = f"{run['source']}/{run['potential']}/{run['lmbda']:g}/{run['reward_min_value']:g}"
        name += "/adaptive" * run["adaptive_resampling"]
        ours = [best_last(rewards)] if run["potential"] == "bon" else steered(run, config, rewards)
        for event, found in zip(run["events"], ours):
            yield from matches(f"{name}/{event['sampling_idx']}", event, found)


def matches(where: str, event, ours) -> Iterator[Comparison]:
    for key, value in ours.items():
        if key not in event:
            continue
        if key in ("resampled", "latents_out"):
            yield equal(f"{where} {key}", value, event[key])
        else:
            yield close(f"{where} {key}", value, event[key], rtol=1e-4, atol=1e-6)


def best_last(rewards) -> dict:
    """Best-of-N in their words: sorted by the last reward."""
    return {"latents_out": rewards[-1].argsort(descending=True, stable=True).tolist(), "resampled": False}


def steered(run, config, rewards) -> Iterator[dict]:
    potential, end = POTENTIALS[run["potential"]], config["time_steps"] - 1
    lineage = Lineage.begin(rewards[0], run["reward_min_value"])
    for event in run["events"]:
        step = event["sampling_idx"]
        log_weight, lineage = weigh(rewards[step], lineage, potential, run["lmbda"], last=step == end)
        weight = log_weight.exp().clamp(0, 1e10)
        if run["source"] == "discrete_diffusion" and (weight == 0).all():
            weight = torch.ones_like(weight)
        asks = run["adaptive_resampling"] or (run["source"] == "text_to_image" and step == end)
        drawn = bool(due(weight.log())) if asks else True
        found = {"resampled": drawn, "latents_out": list(range(len(weight)))}
        if drawn:
            rows = torch.tensor(event["indices"])
            lineage = lineage.drawn(rows, weight.log())
            found |= {"weights": weight, "latents_out": rows.tolist()}
        yield found | {"population_rs": lineage.carried, "product_of_potentials": lineage.log_product.exp()}
