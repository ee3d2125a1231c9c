"""Which prompts to annotate: vote-k selective annotation (Su et al. 2022, arXiv 2209.01975), as ImageReward used it.

Every prompt u votes for its k nearest neighbours N(u) by cosine. A prompt's score is the sum over those who vote for
it and are not selected of rho^-(selected prompts among their neighbours): who is already represented counts less. The
best is picked, and all scores follow from what is picked so far (equations 1 and 2). Scores are whole numbers, so
equal ones are equal, and the first in the list wins.

The graph costs N^2: above `group` prompts it is built inside random groups of that size, and each gives its part, as
ImageReward did with 100 groups of about 20,000. Letters: N prompts, D width, k neighbours. Numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TastemakerError, expect

ROWS, COLUMNS = 1024, 8192  # of the similarities held at a time: 32 MB
Progress = Callable[[int, int], None]  # (prompts done, of all)


def select_prompts(
    embeddings: Any,
    count: int,
    k: int = 150,
    group: int = 20_000,
    rho: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """(count,) rows of the embeddings, group by group in the order of choice.

    embeddings: (N, D) numbers, also a memory map: a group of rows is read at a time. k: at most the size of a group
    less one, else that. group: prompts compared with one another. rho: how strongly those who are represented count
    less, a whole number of at least 2.
    Raises TastemakerError where count is above N, a row is zero or not finite, or a setting cannot be.
    """
    n = len(embeddings)
    expect(getattr(embeddings, "ndim", 0) == 2 and n > 0, "embeddings of shape (N, D)", np.shape(embeddings))
    expect(0 < count <= n, f"a count from 1 to {n}, the number of prompts", count)
    expect(k >= 1 and group >= 2, "k of at least 1 and a group of at least 2", f"k {k}, group {group}")
    parts = np.array_split(np.random.default_rng(seed).permutation(n), math.ceil(n / group))
    chosen, done = [], 0
    for part, wanted in zip(parts, _shares([len(p) for p in parts], count)):
        rows = np.sort(part)  # a memory map is read forwards
        if wanted:
            graph = neighbours(embeddings[rows], min(k, len(rows) - 1))
            chosen.append(rows[vote_k(graph, wanted, rho)])
        done += len(rows)
        if progress:
            progress(done, n)
    return np.concatenate(chosen)


def _shares(sizes: list[int], count: int) -> list[int]:
    """count in proportion to the sizes, the largest remainders rounded up."""
    exact = [count * size / sum(sizes) for size in sizes]
    found = [int(x) for x in exact]
    for i in sorted(range(len(sizes)), key=lambda i: found[i] - exact[i])[: count - sum(found)]:
        found[i] += 1
    return found


def neighbours(embeddings: Any, k: int) -> NDArray[np.int32]:
    """(N, k) the k most similar other rows by cosine, in no particular order; memory for N k numbers and one block.

    Raises TastemakerError for a row that is zero or not finite, and where k is not below N.
    """
    x = np.asarray(embeddings, np.float32)
    expect(0 <= k < len(x), f"k below {len(x)}, the number of prompts", k)
    size = np.linalg.norm(x, axis=1)
    bad = np.flatnonzero(~(np.isfinite(size) & (size > 0)))
    if len(bad):
        raise TastemakerError(f"the embedding of prompt {bad[0]} is zero or not finite, so nothing is near it")
    x = x / size[:, None]
    return np.concatenate([_nearest(x, start, k) for start in range(0, len(x), ROWS)]) if k else _no_one(len(x))


def _no_one(n: int) -> NDArray[np.int32]:
    return np.empty((n, 0), np.int32)


def _nearest(x: NDArray[np.float32], start: int, k: int) -> NDArray[np.int32]:
    """(b, k) for the rows from `start` on: the best of each block of columns are merged with the best so far."""
    rows = x[start : start + ROWS]
    near = np.full((len(rows), 0), 0, np.float32)
    where = np.empty((len(rows), 0), np.int32)
    for left in range(0, len(x), COLUMNS):
        block = rows @ x[left : left + COLUMNS].T
        own = np.arange(max(start, left), min(start + len(rows), left + block.shape[1]))
        block[own - start, own - left] = -np.inf  # nobody votes for itself
        here = np.arange(left, left + block.shape[1], dtype=np.int32)
        block, here = _best(block, np.broadcast_to(here, block.shape), k)
        near, where = _best(np.concatenate([near, block], 1), np.concatenate([where, here], 1), k)
    return where


def _best(near: NDArray, where: NDArray, k: int) -> tuple[NDArray, NDArray]:
    if near.shape[1] <= k:
        return near, where
    keep = np.argpartition(near, near.shape[1] - k, axis=1)[:, -k:]
    return np.take_along_axis(near, keep, 1), np.take_along_axis(where, keep, 1)


def vote_k(graph: NDArray, count: int, rho: int = 10) -> NDArray[np.int64]:
    """(count,) picks in order. graph (N, k): whom each of the N votes for, nobody twice.

    Where nobody is left to vote, the first of the list is taken. Raises TastemakerError unless 0 < count <= N and
    rho is a whole number of at least 2.
    """
    n, k = graph.shape
    expect(0 < count <= n, f"a count from 1 to {n}, the number of prompts", count)
    expect(isinstance(rho, int) and rho >= 2, "rho, a whole number of at least 2", rho)
    depth = max(1, int(math.log(2**62 / n, rho)))  # beyond it a vote counts nothing, and no sum overflows
    worth = np.array([rho ** (depth - c) for c in range(depth + 1)] + [0], np.int64)
    order = np.argsort(graph.reshape(-1), kind="stable")
    voters = order // max(k, 1)  # sorted by whom they vote for
    starts = np.searchsorted(graph.reshape(-1)[order], np.arange(n + 1))
    seen = np.zeros(n, np.int64)  # selected among one's neighbours
    scores = np.diff(starts) * worth[0]
    votes, picks = np.ones(n, bool), np.empty(count, np.int64)
    for i in range(count):
        pick = picks[i] = int(scores.argmax())
        changed = voters[starts[pick] : starts[pick + 1]]
        changed = changed[votes[changed]]
        level = np.minimum(seen[changed], depth + 1)
        lost = worth[level] - worth[np.minimum(level + 1, depth + 1)]
        seen[changed] += 1
        np.subtract.at(scores, graph[changed].reshape(-1), np.repeat(lost, k))
        scores[graph[pick]] -= worth[min(seen[pick], depth + 1)]  # the picked one votes no more
        votes[pick] = False
        scores[pick] = np.iinfo(np.int64).min // 2
    return picks
