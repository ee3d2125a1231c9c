"""Several verifiers as one that is not easily fooled: the mean of their answers less their disagreement.

    score = mean - kappa std            over the members, std of the set

A picture that one verifier loves and the others do not is where best-of-N exploits a verifier: with N the chance
grows that it is found. Pessimism about what members disagree on is the remedy studied for large N (arXiv 2604.04648).
Members should answer in one unit, such as log-odds. An answer that one member does not give is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..records import Prompt, Provenance


def pessimistic(answers: Tensor, kappa: float) -> Tensor:
    """(M, B) answers of M members -> (B,): mean - kappa std, the std of the set; NaN where one is."""
    return answers.mean(0) - kappa * answers.std(0, correction=0)


class Ensemble:
    """A `Verifier` where all its members are; else a reward."""

    differentiable = False

    def __init__(self, members: Sequence[Any], kappa: float = 1.0):
        expect(len(members) >= 2 and kappa >= 0, "two or more members and kappa of at least 0", (len(members), kappa))
        self.members, self.kappa = list(members), kappa
        self.name = f"pessimistic({'+'.join(m.name for m in members)})"
        self.range = (-float("inf"), float("inf"))
        hashes = "+".join(m.provenance.weight_hash for m in members)
        self.provenance = Provenance(f"{self.name}, kappa {kappa}", hashes)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,)."""
        return pessimistic(self._all("score", images, prompts), self.kappa)

    def __getattr__(self, name: str) -> Any:
        if name not in ("clear", "potential") or not all(hasattr(m, name) for m in self.__dict__.get("members", ())):
            raise AttributeError(name)

        def answer(images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
            return pessimistic(self._all(name, images, prompts, progress), self.kappa).clamp(0, 1)

        return answer

    def _all(self, question: str, images: Tensor, prompts: Sequence[Prompt], *more: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([getattr(m, question)(images, prompts, *more).float().cpu() for m in self.members])


def load_ensemble(said: str) -> Ensemble:
    """`KAPPA:NAME+NAME`, such as `1.0:judge:runs/a+judge:runs/b`. Raises TastemakerError for another form."""
    from .table import load_reward

    number, _, names = said.partition(":")
    try:
        kappa = float(number)
    except ValueError:
        kappa = float("nan")
    members = [name for name in names.split("+") if name]
    if kappa != kappa or len(members) < 2:
        raise TastemakerError(
            f"expected pessimistic:KAPPA:NAME+NAME, such as pessimistic:1.0:judge:runs/a+judge:runs/b, got '{said}'"
        )
    return Ensemble([load_reward(name) for name in members], kappa)
