"""Which pair to ask about next: where the reward models of an ensemble disagree, or where one is undecided.

The models' answers are handed over as arrays. Letters: M models, P pairs. Numpy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError, expect


def probabilities(margins: Any) -> NDArray[np.float64]:
    """(M, P) that the first picture is better, from reward differences (M, P) or (P,) of one model, in the unit in
    which the models were trained (Bradley-Terry). Raises TastemakerError for another shape or a NaN."""
    x = np.atleast_2d(np.asarray(margins, np.float64))
    if x.ndim != 2 or np.isnan(x).any():
        raise TastemakerError(
            f"expected reward differences (models, pairs) without NaN, got shape {np.shape(margins)}"
        )
    return np.exp(-np.logaddexp(0, -x))


def entropy(p: NDArray) -> NDArray[np.float64]:
    """Of a coin, in nats: 0 where it is sure, log 2 at 1/2."""
    q = 1 - p
    return -(p * np.log(p, out=np.zeros_like(p), where=p > 0) + q * np.log(q, out=np.zeros_like(q), where=q > 0))


def closeness(margins: Any) -> NDArray[np.float64]:
    """(P,) entropy of the mean probability: how near the ensemble is to 1/2, be it for noise or for not knowing."""
    return entropy(probabilities(margins).mean(0))


def information(margins: Any) -> NDArray[np.float64]:
    """(P,) how much an answer is expected to say about the models (Houlsby et al. 2011, arXiv 1112.5745): the entropy
    of the mean probability less the mean entropy, in nats. 0 where all models agree, also if they agree on 1/2.

    Raises TastemakerError for a single model, which says nothing about what it does not know.
    """
    p = probabilities(margins)
    expect(len(p) >= 2, "an ensemble of at least 2 models; for one model use closeness", f"{len(p)} model")
    return np.maximum(0.0, entropy(p.mean(0)) - entropy(p).mean(0))


def spread(margins: Any) -> NDArray[np.float64]:
    """(P,) standard deviation of the models' probabilities, 0 to 1/2."""
    return probabilities(margins).std(0)


def next_pairs(
    priority: Any, count: int, prompts: Sequence[Hashable] | None = None, per_prompt: int = 1, asked: Any = None
) -> list[int]:
    """The `count` pairs of highest priority, the highest first; fewer where there are not so many.

    priority (P,), such as `information`. prompts (P,): at most `per_prompt` pairs of one prompt are taken, since
    pairs of one prompt say much the same. asked (P,) bool: pairs already answered, left out.
    """
    values = np.asarray(priority, np.float64)
    taken = np.zeros(len(values), bool) if asked is None else np.asarray(asked, bool)
    expect(values.ndim == 1 and taken.shape == values.shape, "one priority for each pair", values.shape)
    expect(prompts is None or len(prompts) == len(values), f"{len(values)} prompts, one for each pair", prompts)
    often: Counter[Hashable] = Counter()
    found: list[int] = []
    for i in np.argsort(-values, kind="stable"):
        if len(found) == count:
            break
        full = prompts is not None and often[prompts[i]] >= per_prompt
        if taken[i] or full or np.isnan(values[i]):
            continue
        found.append(int(i))
        if prompts is not None:
            often[prompts[i]] += 1
    return found
