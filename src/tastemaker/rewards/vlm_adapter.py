"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on the language model of a verifier, through peft.

The pictures' side stays as it is. What is trained is the log-odds of yes against no at the first answer token, in the
same conversations that are asked later. A run holds the adapter and says which folder it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MissingExtra, TastemakerError
from ..records import Prompt
from ..weights import load_weights, save_weights
from . import questions
from .vlm import SPELLINGS, LocalVlm, load_vlm
from .yes_no import answer_log_prob

KIND = "vlm-adapter"
LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
ASKED = (questions.outcome, questions.clarity, questions.potential)  # as algorithms/judge.py numbers them


class VlmStudent:
    """What `train judge` trains. Its questions are those of the verifier."""

    def __init__(self, verifier: LocalVlm, folder: str, rank: int):
        self.verifier, self.folder, self.rank, self.recipe = verifier, folder, rank, {}  # type: ignore[var-annotated]

    @property
    def network(self) -> Any:
        return self.verifier.network

    def logits(self, images: Tensor, prompts: Sequence[Prompt], question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-odds of yes (1, B), with a gradient, and no words or regions, (1, B, 0) each."""
        asked = [ASKED[int(k)](p.text) for k, p in zip(question, prompts)]
        odds = torch.zeros(len(images), device=self.verifier.device)
        for rows in self.verifier._alike(asked):
            logits = self.verifier.first_logits(images[rows], asked[rows[0]], remember=False)
            yes, no = (answer_log_prob(logits, self.verifier.ids[word]) for word in SPELLINGS)
            odds = odds.index_put((torch.tensor(rows, device=odds.device),), yes - no)
        return odds[None], odds.new_zeros(1, len(images), 0), odds.new_zeros(1, len(images), 0)

    def write(self, path: str | Path) -> str:
        """The adapter alone, in one file; returns its sha256."""
        said = {"kind": KIND, "base": self.folder, "rank": self.rank, "recipe": self.recipe}
        return save_weights(path, adapter_of(self.network), said)


def student_of(verifier: LocalVlm, rank: int, seed: int, folder: str = "") -> VlmStudent:
    """A verifier with a fresh adapter; everything else is frozen. Raises MissingExtra without peft."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("peft", "models") from error
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LAYERS)
        inject_adapter_in_model(config, verifier.network, "judge")
    for name, p in verifier.network.named_parameters():
        p.requires_grad_("lora_" in name)
        p.data = p.data.float() if "lora_" in name else p.data
    return VlmStudent(verifier, folder or str(getattr(verifier.network.config, "_name_or_path", "")), rank)


def adapter_of(network: Any) -> dict[str, Tensor]:
    """The adapter's weights by name."""
    return {name: p for name, p in network.named_parameters() if "lora_" in name}


def load_adapter(run: Path) -> LocalVlm:
    """The verifier of a run: the folder it began with, and its adapter. Raises TastemakerError for another kind, or
    an adapter that does not fit."""
    tensors, said = load_weights(run / "model.safetensors")
    if said.get("kind") != KIND:
        raise TastemakerError(f"{run} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    student = student_of(load_vlm(said["base"]), int(said["rank"]), 0, said["base"])
    ours = adapter_of(student.network)
    if ours.keys() != tensors.keys():
        raise TastemakerError(f"the adapter of {run} does not fit {said['base']}: its layers are others")
    with torch.no_grad():
        for name, p in ours.items():
            p.copy_(tensors[name])
    student.network.eval().requires_grad_(False)
    return student.verifier
