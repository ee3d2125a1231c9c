"""DPO of Image-Generation-CoT: log-probabilities summed over the masked positions, each row with its own mask."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close
from torch import Tensor

from tastemaker.algorithms.dpo import sigmoid_loss
from tastemaker.generators.masked import masked_log_prob


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    inputs = {n: torch.from_numpy(v) for n, v in np.load(folder / "inputs.npz").items()}
    arrays, pairs = np.load(folder / "expected.npz"), config["pairs"]
    labels = inputs["labels"][:, config["max_seq_length"] + 1 :]
    mask = labels != config["ignore_index"]

    def log_prob(logits: Tensor) -> Tensor:
        return masked_log_prob(logits[:, config["max_seq_length"] + 1 :], labels, mask)

    reference = log_prob(inputs["ref_logits"])
    yield close("ref_logp", reference, arrays["ref_logp"], rtol=1e-5, atol=1e-6)
    for row in json.loads((folder / "expected.json").read_text()):
        tag, logits = row["tag"], inputs["policy_logits"].clone().requires_grad_()
        policy = log_prob(logits)
        gain = policy - reference
        margin = gain[:pairs] - gain[pairs:]
        losses = sigmoid_loss(margin, row["beta"])
        chosen = -policy[:pairs].sum() / mask[:pairs].sum()
        loss = row["dpo_coef"] * losses.mean() + row["sft_coef"] * chosen
        loss.backward()
        yield close("policy_logp", policy.detach(), arrays["policy_logp"], rtol=1e-5, atol=1e-6)
        mean = policy.detach() / mask.sum(1)
        yield close("policy_logp_mean", mean, arrays["policy_logp_mean"], rtol=1e-5, atol=1e-6)
        yield close(f"{tag}, margins", margin.detach(), row["margins"], rtol=1e-5, atol=1e-5)
        yield close(f"{tag}, dpo_losses", losses.detach(), row["dpo_losses"], rtol=1e-5)
        yield close(f"{tag}, sft_loss", chosen.detach(), row["sft_loss"], rtol=1e-5)
        yield close(f"{tag}, loss", loss.detach(), row["loss"], rtol=1e-5)
        yield close(f"{tag}/grad_logits", logits.grad, arrays[f"{tag}/grad_logits"], atol=1e-6)
