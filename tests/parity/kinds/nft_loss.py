"""DiffusionNFT's loss. Theirs: t = 1 is noise, velocities point to the noise; ours is the mirror of both."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close

from tastemaker.algorithms.nft import ADVANTAGES, Config, objective, towards_and_away, worth


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    most = json.loads((folder / "config.json").read_text())["adv_clip_max"]
    inputs = {n: torch.from_numpy(v) for n, v in np.load(folder / "inputs.npz").items()}
    arrays = np.load(folder / "expected.npz")
    t, x1 = 1 - inputs["t"], inputs["x0"]
    wide = inputs["t"].reshape(-1, 1, 1, 1)
    x = (1 - wide) * x1 + wide * inputs["noise"]
    for row in json.loads((folder / "expected.json").read_text()):
        tag, v = row["tag"], inputs["v"].clone().requires_grad_()
        config = Config(beta=row["beta"], kl_weight=row["kl_weight"], most_advantage=most)
        r = worth(ADVANTAGES[row["adv_mode"]](inputs["advantages"]), most)
        yield close(f"{tag}/r", r, arrays[f"{tag}/r"], atol=1e-7)
        both = towards_and_away(-v, -inputs["v_old"], x, t, x1, config.beta)
        for name, ours in zip(("positive_loss", "negative_loss"), both):
            yield close(f"{tag}/{name}", ours.detach(), arrays[f"{tag}/{name}"], rtol=1e-5)
        loss = objective(-v, -inputs["v_old"], -inputs["v_ref"], x, t, x1, r, config).mean()
        loss.backward()
        yield close(f"{tag}, loss", loss.detach(), row["loss"], rtol=1e-5)
        yield close(f"{tag}/grad_v", v.grad, arrays[f"{tag}/grad_v"], rtol=1e-4, atol=1e-6)
        policy = most / config.beta * (r * both[0] + (1 - r) * both[1]).mean()
        yield close(f"{tag}, policy loss", policy.detach(), row["true_policy_loss"], rtol=1e-5)
        distance = (v - inputs["v_ref"]).pow(2).mean()
        yield close(f"{tag}, distance to the base", distance.detach(), row["logged_kl_div_loss"], rtol=1e-5)
