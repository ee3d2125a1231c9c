"""How sure a model is of "yes": the arithmetic on its first answer token's log-probabilities.

VQAScore (Lin et al. 2024, arXiv 2404.01291) takes P(yes) over the full vocabulary; an outcome reward model the
log-odds of yes against no. Spellings of an answer ("Yes", " yes") are added.
Letters: B batch, V vocabulary, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SPACES = "\u0120\u2581 \t\n"  # also how byte-level and sentencepiece vocabularies write a leading space


def answer_log_prob(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """(B, V) logits and the ids of one answer's spellings -> (B,) log-probability of any of them, full vocabulary."""
    return logits.log_softmax(-1)[:, list(ids)].logsumexp(-1)


def log_odds(yes: Tensor, no: Tensor) -> Tensor:
    """(B,) log-probabilities of the two answers -> (B,); its sigmoid is P(yes) among the two."""
    return yes - no


def sequence_probability(logits: Tensor, ids: Sequence[int], temperature: float = 1.0) -> Tensor:
    """(B, L, V) logits of the L tokens of one answer -> (B,) the geometric mean of their probabilities.

    With the answer and the end token this is CLIP-FlanT5's official VQAScore: sqrt(P(Yes) P(end | Yes)), not P(Yes).
    """
    chosen = torch.as_tensor(ids, device=logits.device).expand(len(logits), -1)
    found = (logits / temperature).log_softmax(-1).gather(-1, chosen[..., None])
    return found.squeeze(-1).mean(-1).exp()


def answers(listed: Mapping[str, float]) -> tuple[float, float]:
    """Log-probabilities of yes and no from the listed tokens of the first position; NaN where neither is listed.
    One that is not listed gets what `unlisted` says."""
    found = [spellings(listed, word) for word in ("yes", "no")]
    if not any(found):
        return math.nan, math.nan
    yes, no = (log_sum(values) if values else unlisted(listed) for values in found)
    return yes, no


def unlisted(listed: Mapping[str, float]) -> float:
    """The largest log-probability that the list leaves for a token that is not in it: no more than the last listed
    one, and no more than what the listed ones leave of 1."""
    rest = max(1 - sum(math.exp(v) for v in listed.values()), 1e-9)
    return min(min(listed.values()), math.log(rest))


def spellings(listed: Mapping[str, float], word: str) -> list[float]:
    return [value for token, value in listed.items() if token.strip(SPACES).casefold() == word]


def log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values)) if math.isfinite(top) else top
