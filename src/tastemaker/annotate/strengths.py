"""Strengths from comparisons by maximum likelihood: Bradley-Terry, and Davidson's model where ties count.

Bradley & Terry (1952, Biometrika 39:324): P(i beats j) = 1 / (1 + exp(s_j - s_i)), a tie being half a win to each.
Davidson (1970, JASA 65:317): win, loss and tie have weights exp(s_i), exp(s_j) and v exp((s_i + s_j) / 2).
Strengths are natural logarithms with mean 0. Letters: P comparisons, N items. Numpy only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.pairs import compared
from ..errors import TastemakerError
from ..records import Interval, Ranking, Vote

ELO = 400 / math.log(10)  # of one unit of strength
STEPS, CLOSE = 100, 1e-10


@dataclass(frozen=True)
class Comparisons:
    """P comparisons between N items."""

    items: tuple[Hashable, ...]
    first: NDArray[np.int64]  # (P,) index of an item
    second: NDArray[np.int64]  # (P,)
    outcome: NDArray[np.float64]  # (P,) 1 where the first won, 0 where the second did, 0.5 for a tie
    prompts: NDArray[np.int64]  # (P,) 0 .. number of prompts - 1
    annotators: NDArray[np.int64]  # (P,)


def comparisons_of(
    answers: Iterable[Vote | Ranking], item: Callable[[str], Hashable | None] = lambda picture: picture
) -> Comparisons:
    """Of votes and rankings. item: what a picture stands for, such as the model that made it (None: left out);
    comparisons within one item are left out. "Both bad" is a tie.

    Raises TastemakerError where nothing is left.
    """
    rows = [
        (item(a), item(b), preference, answer.prompt_id, answer.annotator)
        for answer in answers
        for a, b, preference in compared(answer)
    ]
    rows = [row for row in rows if None not in row[:2] and row[0] != row[1]]
    if not rows:
        raise TastemakerError("there is no comparison between two of the items; strengths need some")
    items = list(dict.fromkeys(name for row in rows for name in row[:2]))
    place = {name: i for i, name in enumerate(items)}
    first, second = (np.array([place[row[k]] for row in rows]) for k in (0, 1))
    prompts, annotators = (np.unique([row[k] for row in rows], return_inverse=True)[1] for k in (3, 4))
    return Comparisons(tuple(items), first, second, np.array([row[2] for row in rows]), prompts, annotators)


def counts_of(votes: Comparisons, weights: NDArray | None = None) -> tuple[NDArray, NDArray]:
    """(wins, ties), (N, N) each: wins[i, j] of i over j, ties symmetric; weights (P,) of the comparisons."""
    n, weights = len(votes.items), np.ones(len(votes.first)) if weights is None else weights
    best = np.where(votes.outcome == 0, votes.second, votes.first)
    other = np.where(votes.outcome == 0, votes.first, votes.second)
    tied = votes.outcome == 0.5
    wins, ties = (np.bincount(best * n + other, weights * which, n * n).reshape(n, n) for which in (~tied, tied))
    return wins, ties + ties.T


# maximum likelihood


def bradley_terry(wins: NDArray, l2: float = 0.0, gamma: float = 0.0) -> NDArray[np.float64]:
    """(N,) strengths with mean 0 from wins (N, N), a tie as half a win to each.

    l2: minus l2 / 2 times the sum of squared strengths is added to the log-likelihood. gamma: gamma times the sum of
    (s - exp s), Caron & Doucet's gamma prior (2012), under which the mean of exp s is 1 before centring. With both 0
    the plain maximum; TastemakerError where that does not exist, since some items never lost to the others.
    """
    wins = _square(wins)
    if l2 == gamma == 0:
        _check_connected(wins)
    n, met = len(wins), wins + wins.T
    won = wins.sum(1)

    def fit(s: NDArray) -> tuple[float, NDArray, NDArray]:
        p = 1 / (1 + np.exp(np.clip(s[None] - s[:, None], -700, 700)))  # p[i, j]: i beats j
        grown = np.exp(s)
        value = -(wins * np.logaddexp(0, s[None] - s[:, None])).sum() - l2 / 2 * s @ s + gamma * (s - grown).sum()
        slope = won - (met * p).sum(1) - l2 * s + gamma * (1 - grown)
        curve = met * p * p.T
        return value, slope, np.diag(curve.sum(1) + l2 + gamma * grown) - curve

    s = _newton(fit, np.zeros(n), free=l2 == gamma == 0)
    return s - s.mean()


def davidson(wins: NDArray, ties: NDArray, l2: float = 0.0) -> tuple[NDArray[np.float64], float]:
    """((N,) strengths with mean 0, v) from wins (N, N) and symmetric ties (N, N); v is 0 where there are no ties.

    Two items of equal strength tie with probability v / (2 + v). l2 as in `bradley_terry`. Raises TastemakerError
    where there is no maximum: all are ties, or some items neither lost to nor tied with the others.
    """
    wins, ties = _square(wins), _square(ties)
    if not ties.any():
        return bradley_terry(wins, l2), 0.0
    if not wins.any():
        raise TastemakerError("every comparison is a tie, so strengths are not defined")
    if l2 == 0:
        _check_connected(wins + ties)
    n, met = len(wins), wins + wins.T + ties
    target = np.append(wins.sum(1) + ties.sum(1) / 2, ties.sum() / 2)

    def fit(x: NDArray) -> tuple[float, NDArray, NDArray]:
        s, eta = x[:n], x[n]
        middle = (s[:, None] + s[None]) / 2 + eta
        size = np.logaddexp(np.logaddexp(s[:, None], s[None]), middle)
        p, t = np.exp(s[:, None] - size), np.exp(middle - size)  # i beats j, i ties with j
        value = target @ x - (np.triu(met, 1) * size).sum() - l2 / 2 * s @ s
        slope = target - np.append((met * (p + t / 2)).sum(1), np.triu(met * t, 1).sum())
        slope[:n] -= l2 * s
        return value, slope, _davidson_curve(met, p, t) + np.diag(np.append(np.full(n, l2), 0.0))

    x = _newton(fit, np.zeros(n + 1), free=l2 == 0)
    return x[:n] - x[:n].mean(), math.exp(x[n])


def _davidson_curve(met: NDArray, p: NDArray, t: NDArray) -> NDArray:
    """Minus the second derivatives (N + 1, N + 1): each pair's covariance of (half-wins of i, of j, tie)."""
    n, mean = len(p), p + t / 2
    own = met * (p + t / 4 - mean**2)
    cross = met * (t / 4 - mean * mean.T)
    edge = (met * (t / 2 - mean * t)).sum(1)
    curve = np.zeros((n + 1, n + 1))
    curve[:n, :n] = cross
    curve[np.arange(n), np.arange(n)] = own.sum(1)
    curve[:n, n] = curve[n, :n] = edge
    curve[n, n] = np.triu(met * t * (1 - t), 1).sum()
    return curve


Fit = Callable[[NDArray], tuple[float, NDArray, NDArray]]


def _newton(fit: Fit, x: NDArray, free: bool) -> NDArray:
    """The maximum of a concave function; free: it does not change when all strengths grow alike, so that direction
    is pinned. Steps are halved until the function rises."""
    value, slope, curve = fit(x)
    for _ in range(STEPS):
        if np.abs(slope).max() <= CLOSE * (1 + np.abs(np.diag(curve)).max()):
            return x
        pinned = curve + _pin(len(x), curve) if free else curve
        step = np.linalg.solve(pinned + 1e-13 * np.eye(len(x)), slope)
        for _ in range(40):
            rise = fit(x + step)
            if rise[0] >= value - 1e-12 * abs(value):
                break
            step = step / 2
        x, (value, slope, curve) = x + step, rise
    raise TastemakerError("the strengths did not settle: some items hardly ever lost or won; set l2, such as 0.1")


def _pin(size: int, curve: NDArray) -> NDArray:
    return np.full((size, size), max(1e-6, np.abs(np.diag(curve)).mean()) / size)


def _square(counts: NDArray) -> NDArray[np.float64]:
    counts = np.array(counts, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any():
        raise TastemakerError(f"expected counts (N, N) of at least 0, got shape {counts.shape}")
    np.fill_diagonal(counts, 0)
    return counts


def _check_connected(wins: NDArray) -> None:
    """Ford's condition (1957): however the items are divided, each side has beaten the other."""
    for reach, word in ((wins > 0, "beat"), (wins.T > 0, "lost to")):
        seen = np.zeros(len(wins), bool)
        seen[0] = True
        while True:
            grown = seen | reach[seen].any(0)
            if (grown == seen).all():
                break
            seen = grown
        if not seen.all():
            rest = np.flatnonzero(~seen)[:5].tolist()
            raise TastemakerError(
                f"strengths have no finite maximum: item 0 and those linked to it never {word} item(s) {rest}; "
                "collect votes between them, or set l2, such as 0.1"
            )


# what follows from them


def win_probability(strengths: NDArray) -> NDArray[np.float64]:
    """(N, N) of Bradley-Terry: [i, j] that i beats j."""
    return 1 / (1 + np.exp(strengths[None] - strengths[:, None]))


def log_likelihood(wins: NDArray, strengths: NDArray) -> float:
    """Of Bradley-Terry, in nats; half wins count half."""
    return float(-(np.asarray(wins) * np.logaddexp(0, strengths[None] - strengths[:, None])).sum())


def elo(strengths: NDArray) -> NDArray[np.float64]:
    """The same strengths in Elo's unit: 400 points are odds of ten to one. A view; nothing is rated in sequence."""
    return strengths * ELO


@dataclass(frozen=True)
class Strengths:
    """items in the order given; strengths in natural logarithms with mean 0; ties: Davidson's v."""

    items: tuple[Hashable, ...]
    strengths: tuple[Interval, ...]
    ties: Interval


def strengths(
    votes: Comparisons,
    l2: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
    over: Sequence[str] = ("prompts", "annotators"),
) -> Strengths:
    """Davidson's strengths with 95 % intervals by resampling whole prompts and whole annotators, each with
    replacement and independently (the pigeonhole bootstrap of Owen 2007, which is never too narrow).

    over: `prompts`, `annotators` or both. A kind of which there is only one is not resampled. Raises TastemakerError
    as `davidson` does, and where more than a tenth of the resamples have no maximum; fewer are left out with a
    warning. With few votes set l2.
    """
    if set(over) - {"prompts", "annotators"}:
        raise TastemakerError(f"expected to resample over prompts or annotators, got {tuple(over)}")
    value, tie = davidson(*counts_of(votes), l2)
    rng, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        try:
            drawn, v = davidson(*counts_of(votes, _weights(votes, over, rng)), l2)
        except TastemakerError:
            continue
        draws.append(np.append(drawn, v))
    lost = resamples - len(draws)
    if lost > resamples / 10:
        raise TastemakerError(
            f"{lost} of {resamples} resamples have no strengths: too few votes; set l2, such as 0.1"
        )
    if lost:
        warnings.warn(f"{lost} of {resamples} resamples have no strengths and are left out", stacklevel=2)
    low, high = np.percentile(np.array(draws), [2.5, 97.5], axis=0)
    bounds = zip(np.append(value, tie), low, high)
    intervals = [Interval(float(v), float(a), float(b), len(votes.first)) for v, a, b in bounds]
    return Strengths(votes.items, tuple(intervals[:-1]), intervals[-1])


def _weights(votes: Comparisons, over: Sequence[str], rng: np.random.Generator) -> NDArray[np.float64]:
    """(P,) how often each comparison is drawn."""
    weights = np.ones(len(votes.first))
    for kind in over:
        ids = getattr(votes, kind)
        count = int(ids.max()) + 1
        weights = weights * (rng.multinomial(count, np.full(count, 1 / count))[ids] if count > 1 else 1)
    return weights
