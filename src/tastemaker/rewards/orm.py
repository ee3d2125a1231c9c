"""A verifier behind an OpenAI-compatible endpoint: the log-odds of "yes, this is what was asked for".

    score = log P(yes) - log P(no) of the first answer token, the spellings of each added

The zero-shot verifier of "Can we generate images with CoT?" (Guo et al. 2025, arXiv 2501.13926) took P("yes") in
lower case only, and of a sampled answer; this reads the distribution itself, one prefill an answer. A tuned verifier
is used alike. Clarity, potential and critique are further turns; an endpoint with prefix caching reads the picture
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import questions
from .asked import Answers, Asked
from .endpoint import Endpoint
from .questions import Conversation
from .yes_no import answers

NEITHER = "the answer was neither yes nor no"


class EndpointVerifier(Asked):
    """Asks `endpoint.workers` pictures at a time. What fails is tried again with pauses, then it is NaN."""

    def __init__(self, endpoint: Endpoint, name: str, preview: Callable[[str], Conversation] = questions.potential):
        super().__init__(name, str(endpoint.model), preview)
        self.endpoint = endpoint

    def answers(self, images: Tensor, conversations: Sequence[Conversation]) -> Answers:
        """(B,) each. Raises TastemakerError for what would meet every picture alike."""
        found = self.endpoint.first_tokens(images, conversations)
        pairs = [(math.nan, math.nan) if isinstance(one, str) else answers(one) for one in found]
        reasons = [one if isinstance(one, str) else NEITHER for one, pair in zip(found, pairs) if math.isnan(pair[0])]
        yes, no = torch.tensor(pairs).reshape(-1, 2).unbind(1)
        return Answers(yes, no, tuple(reasons))

    def texts(self, images: Tensor, conversations: Sequence[Conversation]) -> list[str]:
        """In words; empty, with the reason kept, where there is no answer."""
        found = self.endpoint.texts(images, conversations)
        self.unanswered.update(reason for _, reason in found if reason)
        return [text for text, _ in found]


def load_orm(where: str) -> EndpointVerifier:
    """`http://host:8000/v1` or `http://host:8000/v1#model`: log-odds, above 0 where yes is the likelier answer."""
    return EndpointVerifier(Endpoint.of(where).named(), "orm")


def load_prm(where: str) -> EndpointVerifier:
    """The same, which asks of a preview whether it is on the way, in one turn."""
    return EndpointVerifier(Endpoint.of(where).named(), "prm", questions.process)
