"""How a reward agrees with people on pictures of one prompt. Intervals resample whole prompts; numpy only.

Ties of people are left out of accuracies: nobody said which is better. A tie of the model is worth `model_tie`: 1/2,
a coin's worth, unless said otherwise; ImageReward's own test counts it as wrong (0). For recall@k and filter@k ties
of the model are broken by lot, in expectation. Letters: P pairs, N pictures, G prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import correlation
from ..errors import TastemakerError, expect
from ..records import Interval
from . import intervals
from .intervals import RESAMPLES, finite, summarise

ROWS = 1 << 22  # numbers of resampling weights held at a time


@dataclass(frozen=True)
class Accuracy:
    """pooled: over all pairs; per_prompt: the mean of the prompts' own accuracies, each prompt counting once."""

    pooled: Interval  # count: pairs
    per_prompt: Interval  # count: prompts
    human_ties: int  # pairs left out
    model_ties: int  # pairs worth `model_tie`


def hits(margins: Any, preferences: Any, model_tie: float = 0.5) -> NDArray[np.float64]:
    """(P,) 1 where the model prefers the picture that people prefer, 0 where the other, `model_tie` where neither;
    NaN where people do not.

    margins (P,): score of a less score of b. preferences (P,): 1 where people prefer a, 0 where b, 0.5 for a tie;
    other shares between count by their side. Raises TastemakerError for other shapes and values.
    """
    margins, preferences = np.asarray(margins, np.float64), np.asarray(preferences, np.float64)
    expect(margins.ndim == 1 and margins.shape == preferences.shape, "a margin and a preference for each pair",
           f"shapes {margins.shape} and {preferences.shape}")  # fmt: skip
    expect(0 <= model_tie <= 1, "model_tie from 0 to 1", model_tie)
    expect(bool(((preferences >= 0) & (preferences <= 1)).all()), "preferences from 0 to 1", "others")
    side = np.sign(preferences - 0.5)
    found = np.where(margins == 0, model_tie, (np.sign(margins) == side).astype(float))
    return np.where((side == 0) | np.isnan(margins), np.nan, found)


def pair_accuracy(
    margins: Any, preferences: Any, prompts: Any, model_tie: float = 0.5, resamples: int = RESAMPLES, seed: int = 0
) -> Accuracy:
    """Pooled and per prompt, with intervals over prompts. margins, preferences: see `hits`; prompts (P,): ids.

    A missing margin is left out with a warning. Raises TastemakerError where no pair is left that people decided.
    """
    preferences = np.asarray(preferences, np.float64)
    found, decided = hits(margins, preferences, model_tie), preferences != 0.5
    prompts = np.asarray(prompts)
    expect(prompts.shape == found.shape, f"a prompt id for each of {len(found)} pairs", prompts.shape)
    expect(bool(decided.any()), "pairs that people decided", f"{len(found)} pairs, all tied or none at all")
    if decided.sum() == 1:
        decided_hits, groups = found[decided], np.zeros(1, np.int64)
    else:
        (decided_hits,), groups = finite([found[decided]], prompts[decided])
    ties = int((np.asarray(margins, np.float64)[decided] == 0).sum())
    won, met = np.bincount(groups, decided_hits), np.bincount(groups).astype(float)
    pooled = over_prompts(won, met, len(decided_hits), resamples, seed)
    each = over_prompts(won / met, np.ones(len(met)), len(met), resamples, seed)
    return Accuracy(pooled, each, int((~decided).sum()), ties)


def over_prompts(sums: NDArray, weights: NDArray, count: int, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """sum(sums) / sum(weights), resampling whole prompts with replacement; sums, weights (G,) of each prompt."""
    drawn = [d @ sums / (d @ weights) for d in draws(len(sums), resamples, seed)]
    return summarise(float(sums.sum() / weights.sum()), np.concatenate(drawn), count)


def draws(groups: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """(some resamples, G) how often each prompt is drawn, a few resamples at a time."""
    rng, at_a_time = np.random.default_rng(seed), max(1, ROWS // groups)
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size).astype(np.float64)


def pairs_of_rankings(scores: Any, ranks: Any, prompts: Any) -> tuple[NDArray, NDArray, NDArray]:
    """(margins, preferences, prompt of each pair) of every two pictures of a prompt, prompts in the order of first
    mention. scores, ranks, prompts (N,): rank 1 is the best, equal ranks are a tie of people."""
    scores, ranks = np.asarray(scores, np.float64), np.asarray(ranks, np.float64)
    prompts = np.asarray(prompts)
    expect(scores.ndim == 1 and scores.shape == ranks.shape == prompts.shape, "a score, rank and prompt id each",
           f"shapes {scores.shape}, {ranks.shape}, {prompts.shape}")  # fmt: skip
    parts = [(rows[i], rows[j]) for rows in grouped(prompts) for i, j in [np.triu_indices(len(rows), 1)]]
    first, second = (np.concatenate([p[k] for p in parts] or [np.zeros(0, np.int64)]) for k in (0, 1))
    return scores[first] - scores[second], (1 + np.sign(ranks[second] - ranks[first])) / 2, prompts[first]


def grouped(prompts: NDArray) -> list[NDArray[np.int64]]:
    """Rows of each prompt, prompts in the order of first mention."""
    _, first, codes = np.unique(prompts, return_index=True, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1]) if len(codes) else []
    return [rows[i] for i in np.argsort(first)]


# recall@k and filter@k


def best_in_top(scores: Any, ranks: Any, k: int) -> float:
    """Whether people's best of one prompt is among the model's top k; where several are equally best, any of them.

    Ties of the model at the k-th place are broken by lot: the probability. scores, ranks (n,): rank 1 is the best.
    """
    scores, best = np.asarray(scores, np.float64), np.asarray(ranks) == np.min(ranks)
    expect(k >= 1 and scores.shape == best.shape, "k of at least 1, and as many scores as ranks", k)
    if k >= len(scores):
        return 1.0
    edge = np.sort(scores)[-k]  # the lowest score that can be in
    if best[scores > edge].any():
        return 1.0
    tied, places = scores == edge, k - int((scores > edge).sum())
    size, good = int(tied.sum()), int((tied & best).sum())
    return 1 - math.comb(size - good, places) / math.comb(size, places)


def worst_in_bottom(scores: Any, ranks: Any, k: int) -> float:
    """Whether people's worst of one prompt is among the model's bottom k, as `best_in_top`."""
    return best_in_top(-np.asarray(scores, np.float64), -np.asarray(ranks, np.float64), k)


def top_overlap(scores: Any, ranks: Any, k: int) -> float:
    """The share of people's top k that are among the model's top k; equal ones in the order given."""
    model = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:k]
    people = np.argsort(np.asarray(ranks), kind="stable")[:k]
    return len(set(model.tolist()) & set(people.tolist())) / min(k, len(people))


def bottom_overlap(scores: Any, ranks: Any, k: int) -> float:
    """The share of people's bottom k that are among the model's bottom k."""
    return top_overlap(-np.asarray(scores, np.float64), -np.asarray(ranks, np.float64), k)


def recall_at_k(scores: Any, ranks: Any, prompts: Any, k: int, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The share of prompts whose humanly best picture is in the model's top k (ImageReward, appendix C.2).

    scores, ranks, prompts (N,). Only prompts with more than k pictures count, since others cannot miss. Raises
    TastemakerError where there are none.
    """
    return _at_k(best_in_top, scores, ranks, prompts, k, resamples, seed)


def filter_at_k(scores: Any, ranks: Any, prompts: Any, k: int, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The share of prompts whose humanly worst picture is in the model's bottom k, as `recall_at_k`."""
    return _at_k(worst_in_bottom, scores, ranks, prompts, k, resamples, seed)


def _at_k(figure: Any, scores: Any, ranks: Any, prompts: Any, k: int, resamples: int, seed: int) -> Interval:
    scores, ranks = np.asarray(scores, np.float64), np.asarray(ranks, np.float64)
    if np.isnan(scores).any() or np.isnan(ranks).any():
        raise TastemakerError("recall@k and filter@k need a score and a rank for every picture; leave prompts out")
    found = [figure(scores[r], ranks[r], k) for r in grouped(np.asarray(prompts)) if len(r) > k]
    expect(bool(found), f"prompts with more than {k} pictures", "none")
    return over_prompts(np.array(found), np.ones(len(found)), len(found), resamples, seed)


# correlations


def kendall(x: Any, y: Any, prompts: Any = None, resamples: int = 1000, seed: int = 0) -> Interval:
    """Kendall's tau-b of x (N,) and y (N,), resampled by prompt and then by picture (see `intervals.spearman`)."""
    (x, y), groups = finite([x, y], np.arange(len(x)) if prompts is None else prompts)
    value = correlation.kendall(x, y)
    expect(not math.isnan(value), "values that differ on both sides", "a constant side")
    return intervals.bootstrap(intervals.of_parts(correlation.kendall, x, y), groups, resamples, seed)


def mean_correlation(
    model: Any, human: Any, settings: Any, prompts: Any, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Spearman's between the model's and people's mean score of each generator setting: the reward as an automatic
    metric. model, human, settings, prompts (N,) of each picture; the interval resamples prompts and keeps the
    settings. A resample in which a setting has no picture is left out."""
    (model, human), groups = finite([model, human], prompts)
    codes = np.unique(np.asarray(settings), return_inverse=True)[1]
    expect(len(codes) == len(groups) and codes.max() >= 1, "the setting of every picture, at least two", len(codes))
    shape = int(groups.max()) + 1, int(codes.max()) + 1
    cell = groups * shape[1] + codes
    sums = [np.bincount(cell, w, shape[0] * shape[1]).reshape(shape) for w in (model, human, np.ones(len(cell)))]

    def figure(weights: NDArray) -> float:
        ours, theirs, size = (weights @ s for s in sums)
        return correlation.spearman(ours / size, theirs / size) if size.all() else math.nan

    drawn = [figure(row) for block in draws(shape[0], resamples, seed) for row in block]
    return summarise(figure(np.ones(shape[0])), np.array(drawn), shape[1])


# ties of the model as a setting (Deutsch et al. 2023, arXiv 2305.14324)


@dataclass(frozen=True)
class Tied:
    """Pairs of one row: concordant, discordant, tied by people alone, by the model alone, by both."""

    concordant: NDArray
    discordant: NDArray
    human: NDArray
    model: NDArray
    both: NDArray

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Of all pairs: ordered alike or tied by both."""
        return (self.concordant + self.both) / self._all

    @property
    def tau(self) -> NDArray[np.float64]:
        """The same as a correlation from -1 to 1."""
        return 2 * self.accuracy - 1

    @property
    def decided(self) -> NDArray[np.float64]:
        """Of the pairs that people decided; a tie of the model is wrong."""
        return self.concordant / (self._all - self.human - self.both)

    @property
    def genai_bench(self) -> NDArray[np.float64]:
        """As t2v_metrics computes `decided`: pairs that both tie stay among those counted, and so are wrong."""
        return self.concordant / (self._all - self.human)

    @property
    def _all(self) -> NDArray:
        return self.concordant + self.discordant + self.human + self.model + self.both


def tie_counts(human: Any, model: Any, thresholds: Any = 0.0) -> Tied:
    """Where the model's scores at most a threshold apart are tied. human, model (N,), thresholds (T,) or one."""
    human, model = correlation.two_rows(human, model)
    i, j = np.triu_indices(len(human), 1)
    order, apart = np.sign(human[i] - human[j]), model[i] - model[j]
    limits, size = np.atleast_1d(np.asarray(thresholds, np.float64)), np.abs(apart)

    def above(which: NDArray) -> NDArray:
        """How many of these pairs are not tied by the model, at each threshold."""
        return which.sum() - np.searchsorted(np.sort(size[which]), limits, side="right")

    alike = above((order != 0) & (np.sign(apart) == order))
    decided, open_ = above(order != 0), above(order == 0)
    return Tied(alike, decided - alike, open_, (order != 0).sum() - decided, (order == 0).sum() - open_)


def best_tie_threshold(human: Any, model: Any, figure: str = "accuracy") -> tuple[float, float]:
    """(value, threshold): the mean over rows of `accuracy` or `tau`, at the one threshold for all rows that makes it
    highest; the smallest where several do. human, model: rows of scores, or one row.

    Chosen on the data that it is measured on, so it flatters; compare it only with figures made the same way.
    """
    expect(figure in ("accuracy", "tau"), "accuracy or tau", figure)
    rows = [(human, model)] if np.ndim(human[0]) == 0 else list(zip(human, model, strict=True))
    rows = [correlation.two_rows(*row) for row in rows]
    apart = [np.abs(m[i] - m[j]) for _, m in rows for i, j in [np.triu_indices(len(m), 1)]]
    thresholds = np.unique(np.concatenate([[0.0], *apart]))
    values = np.mean([getattr(tie_counts(h, m, thresholds), figure) for h, m in rows], axis=0)
    best = int(np.argmax(values >= values.max() - 1e-12))  # rounding must not decide between equal ones
    return float(values[best]), float(thresholds[best])


def inversion_score(model_ranks: Any, human_ranks: Any) -> float:
    """HPSv2's: 1 less the share of all pairs that are strictly the other way round, so ties count as agreement."""
    _, discordant, *_ = correlation.concordance(model_ranks, human_ranks)
    n = len(np.asarray(human_ranks))
    return 1 - discordant / (n * (n - 1) / 2)
