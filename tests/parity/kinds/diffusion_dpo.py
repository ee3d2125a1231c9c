"""Diffusion-DPO in two codes: Salesforce's, whose beta counts half, and diffusers', with its hinge."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close, equal

from tastemaker.algorithms.dpo import LOSSES, accuracy, sigmoid_loss


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    pairs = json.loads((folder / "config.json").read_text())["pairs"]
    inputs = {n: torch.from_numpy(v) for n, v in np.load(folder / "inputs.npz").items()}
    arrays = np.load(folder / "expected.npz")
    before = errors(inputs["ref_pred"], inputs["target"])
    yield close("ref_losses", before, arrays["ref_losses"], rtol=1e-5)
    for row in json.loads((folder / "expected.json").read_text()):
        tag = row["tag"]
        if "raises" in row:
            yield equal(f"{tag} is not offered", tag.partition("_")[2] in LOSSES, False)
            continue
        predicted = inputs["model_pred"].clone().requires_grad_()
        after = errors(predicted, inputs["target"])
        gain = before - after
        margin, half = gain[:pairs] - gain[pairs:], tag.startswith("salesforce")
        losses = (
            sigmoid_loss(margin, row["beta_dpo"] / 2) if half else LOSSES[row["loss_type"]](margin, row["beta_dpo"])
        )
        losses.mean().backward()
        rtol = 1e-4 if row["beta_dpo"] > 100 else 1e-5
        yield close("model_losses", after.detach(), arrays["model_losses"], rtol=1e-5)
        yield close(f"{tag}, loss", losses.mean().detach(), row["loss"], rtol=rtol)
        yield close(f"{tag}, raw_model_loss", after.mean().detach(), row["raw_model_loss"], rtol=1e-5)
        yield close(f"{tag}, raw_ref_loss", before.mean(), row["raw_ref_loss"], rtol=1e-5)
        yield close(f"{tag}, implicit_acc", accuracy(margin.detach(), 0.0 if half else 0.5), row["implicit_acc"])
        inside, name = (row["beta_dpo"] / 2 * margin, "inside_term") if half else (margin, "logits")
        size = row["beta_dpo"] if half else 1.0
        yield close(f"{tag}/{name}", inside.detach(), arrays[f"{tag}/{name}"], rtol=rtol, atol=1e-7 * size)
        ours, theirs = predicted.grad, arrays[f"{tag}/grad_model_pred"]
        yield close(f"{tag}/grad_model_pred", ours, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(theirs).max()))


def errors(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B,), a mean over the elements of each picture."""
    return (predicted - target).pow(2).flatten(1).mean(1)
