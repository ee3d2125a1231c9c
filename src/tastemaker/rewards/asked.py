"""A verifier that asks a vision-language model: the score is the log-odds of yes, probabilities are those of yes
against no, and where there is no answer there is NaN, never 0, with the reason kept.

How the model is reached is a subclass's matter: `orm.py` asks an endpoint, `vlm.py` a folder on this machine.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..records import Prompt, Provenance
from . import questions
from .questions import Conversation


@dataclass(frozen=True)
class Answers:
    """(B,) log-probabilities of yes and no over the full vocabulary, NaN where there are none; and why."""

    yes: Tensor
    no: Tensor
    reasons: tuple[str, ...] = ()  # one for each NaN

    @property
    def odds(self) -> Tensor:
        """(B,) log P(yes) - log P(no)."""
        return self.yes - self.no


class Asked:
    """A `Verifier`, not differentiable. `unanswered` counts the reasons of every NaN until somebody takes them.

    preview: the question for `potential`; `questions.process` makes it a process reward model (PRM).
    """

    differentiable = False
    range = (-math.inf, math.inf)

    def __init__(self, name: str, model: str, preview: Callable[[str], Conversation] = questions.potential):
        self.name, self.preview = name, preview
        self.provenance = Provenance(f"{name}: {model}", preprocessing=f"{questions.OUTCOME}")
        self.unanswered: Counter[str] = Counter()

    # what a subclass fills in

    def answers(self, images: Tensor, conversations: Sequence[Conversation]) -> Answers:
        """The first answer token of each conversation about its picture (B, 3, H, W) in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say how it asks")

    def texts(self, images: Tensor, conversations: Sequence[Conversation]) -> list[str]:
        """A short answer in words to each; empty where there is none."""
        raise TypeError(f"{type(self).__name__} does not say how it writes")

    # the verbs of a verifier

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """log P(yes) - log P(no) to the outcome question, (B,)."""
        return self._odds(images, [questions.outcome(p.text) for p in prompts])

    def clear(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        """P(the preview can be judged), (B,)."""
        return self._odds(images, [questions.clarity(p.text) for p in prompts]).sigmoid()

    def potential(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        """P(the preview becomes what was asked for), (B,)."""
        return self._odds(images, [self.preview(p.text) for p in prompts]).sigmoid()

    def critique(self, images: Tensor, prompts: Sequence[Prompt]) -> list[str]:
        """What is wrong with each picture, in words."""
        return self.texts(images, [questions.critique(p.text) for p in prompts])

    def judge(self, images: Tensor, prompts: Sequence[Prompt], questions_: Sequence[str]) -> Tensor:
        """P(yes) to each of Q questions about every picture, (B, Q)."""
        columns = [self._odds(images, [questions.statement(q)] * len(images)) for q in questions_]
        return torch.stack(columns, 1).sigmoid() if columns else torch.empty(len(images), 0)

    def asked(self, images: Tensor, conversations: Sequence[Conversation]) -> Answers:
        """Of every picture, with a warning where one has no answer; one that is not finite is not asked about."""
        sound = images.isfinite().flatten(1).all(1).cpu()
        rows = sound.nonzero()[:, 0]
        found = self.answers(images[rows.to(images.device)], [conversations[i] for i in rows.tolist()])
        yes, no = torch.full((2, len(images)), math.nan)
        yes[rows], no[rows] = found.yes.float().cpu(), found.no.float().cpu()
        reasons = (*found.reasons, *(["the picture is not finite"] * int((~sound).sum())))
        self.unanswered.update(reasons)
        if reasons:
            count = f"{len(reasons)} of {len(images)} pictures"
            warnings.warn(f"'{self.name}' got no answer for {count}; the first: {reasons[0]}", stacklevel=3)
        return Answers(yes, no, reasons)

    def _odds(self, images: Tensor, conversations: Sequence[Conversation]) -> Tensor:
        return self.asked(images, conversations).odds
