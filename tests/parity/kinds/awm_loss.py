"""AWM's surrogate log-density, ratios, clip and distances. Theirs: t = 1 is noise, velocities point to the noise."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close
from torch import Tensor

from tastemaker.algorithms.advantages import surrogate
from tastemaker.algorithms.awm import elbo_weight, log_density, over_times, velocity_distance

WEIGHTINGS = {
    "Uniform": "uniform",
    "t": "noise",
    "t**2": "noise-squared",
    "huber": "huber",
    "ghuber": "generalised-huber",
}


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    inputs = {n: torch.from_numpy(v) for n, v in np.load(folder / "inputs.npz").items()}
    arrays = np.load(folder / "expected.npz")
    for row in json.loads((folder / "expected.json").read_text()):
        yield from case(row, config, inputs, arrays)


def case(row, config, inputs, arrays) -> Iterator[Comparison]:
    tag, t, count = row["tag"], 1 - inputs["t"].double(), config["batch_size"]
    v = inputs["v"].clone().requires_grad_()
    known = (inputs["x0"], inputs["noise"], t, WEIGHTINGS[row["weighting"]])
    new, old = log_density(-v, *known), log_density(-inputs["v_old"], *known)
    yield close(f"{tag}/log_prob", new.detach(), arrays[f"{tag}/log_prob"], rtol=1e-6)
    yield close(f"{tag}/old_log_prob", old, arrays[f"{tag}/old_log_prob"], rtol=1e-6)
    advantage = inputs["advantages"].clamp(-config["adv_clip_max"], config["adv_clip_max"])
    if row["advantage_max"] is not None:
        advantage = advantage / config["adv_clip_max"] * row["advantage_max"]
    if row["loss_type"] == "sum_first":
        ratio = over_times(new, count) - over_times(old, count)
    else:
        ratio, advantage = new - old, advantage.repeat(config["train_timesteps"])
    yield close(f"{tag}/ratio", ratio.detach().exp(), arrays[f"{tag}/ratio"], rtol=1e-6)
    policy = surrogate(ratio, advantage, row["clip_range"]).mean()
    loss = policy + row["beta"] * distance(v, inputs["v_ref"], t, row["kl_weight"])
    if row["beta"] > 0:
        loss = loss + row["ema_beta"] * distance(v, inputs["v_ema"], t, row["kl_ema_weight"])
    loss.backward()
    yield close(f"{tag}, policy loss", policy.detach(), row["policy_loss"], rtol=1e-6)
    yield close(f"{tag}, loss", loss.detach(), row["loss"], rtol=1e-6)
    yield close(f"{tag}/grad_v", v.grad, arrays[f"{tag}/grad_v"], rtol=1e-4, atol=1e-7)
    spread = (0.5 / elbo_weight(t)).sqrt()
    yield close(f"{tag}/std_dev_t", spread, arrays[f"{tag}/std_dev_t"].reshape(-1), rtol=1e-6)
    for name, other, weight in (("kl_loss", "v_ref", "kl_weight"), ("ema_kl_loss", "v_ema", "kl_ema_weight")):
        if row[name] is not None:
            found = distance(v.detach(), inputs[other], t, row[weight])
            yield close(f"{tag}, {name}", found, row[name], rtol=1e-6)


def distance(v: Tensor, other: Tensor, t: Tensor, weight: str) -> Tensor:
    found = velocity_distance(v, other)
    return (found * elbo_weight(t) if weight == "ELBO" else found).mean()
