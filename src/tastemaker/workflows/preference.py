"""`tastemaker evaluate preference`: how often rewards and people agree, with intervals over prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.pair_batches import Picture
from ..data.pairs import Pair, prompt_key
from ..evaluation.preference import filter_at_k, pair_accuracy, recall_at_k
from ..protocols import Reward
from ..records import Interval, Prompt
from ..rewards.table import load_reward
from ..sampling import score_batch
from .evaluate import Settings, finish
from .judged import Judged, read_judged
from .runs import make_room

TIE_POLICY = "Pairs that people tied are left out; a tie of the model counts half. Intervals are 95 %, by prompt."
Row = tuple[Picture, str]  # a picture and the words that it was judged by
BATCH = 64  # pictures
TOPS = (1, 2, 4)  # k of recall@k and filter@k


def evaluate_preference(rewards: Sequence[str], data: Path, scale: str, margin: float, out: Path) -> Path:
    """Every reward on the same pairs. Returns the page."""
    make_room(out)
    loaded = {name: load_reward(name) for name in rewards}
    judged = read_judged(data, scale, margin)
    result = preference_figures(loaded, judged.pairs, judged)
    return finish(out, Settings("preference", ",".join(rewards), str(data), scale), result)


def preference_figures(rewards: Mapping[str, Reward], pairs: Sequence[Pair], judged: Judged) -> dict[str, Any]:
    """A contender per reward, and the ceiling where the votes have one; see report/comparison.py."""
    scores = row_scores(list(rewards.values()), pairs, judged.pictures)
    result: dict[str, Any] = {"summary": TIE_POLICY}
    for k, name in enumerate(rewards):
        own = {row: values[k] for row, values in scores.items()}
        result[name] = {"label": name, "preference": figures_of(own, pairs)}
    if judged.ceiling is not None:
        best = judged.ceiling(pairs)
        result["ceiling"] = {
            "label": "the best that anybody can do",
            "preference": {"pair accuracy": asdict(Interval(best, best, best, len(pairs)))},
        }
    return result


def row_scores(
    rewards: Sequence[Reward], pairs: Sequence[Pair], pictures: Callable[[Picture], Tensor]
) -> dict[Row, list[float]]:
    """The scores (R) of every picture with its prompt, each read and scored once."""
    rows: dict[Row, Prompt] = {}
    for pair in pairs:
        for name in (pair.image_a, pair.image_b):
            rows.setdefault((name, pair.prompt.text), pair.prompt)
    scores: dict[Row, list[float]] = {}
    for names, images in _batches(list(rows), pictures):
        scores |= dict(zip(names, score_batch(rewards, images, [rows[n] for n in names]).tolist()))
    return scores


def _batches(rows: Sequence[Row], pictures: Callable[[Picture], Tensor]) -> Iterator[tuple[list[Row], Tensor]]:
    """Neighbours of one size together, BATCH at most."""
    names: list[Row] = []
    images: list[Tensor] = []
    for row in rows:
        image = pictures(row[0])
        if images and (len(images) == BATCH or image.shape != images[0].shape):
            yield names, torch.stack(images)
            names, images = [], []
        names.append(row)
        images.append(image)
    if images:
        yield names, torch.stack(images)


def figures_of(scores: Mapping[Row, float], pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Pair accuracy pooled and per prompt, recall@k and filter@k where prompts are ranked whole, as intervals."""
    margins = [scores[p.image_a, p.prompt.text] - scores[p.image_b, p.prompt.text] for p in pairs]
    accuracy = pair_accuracy(margins, [p.preference for p in pairs], [prompt_key(p) for p in pairs])
    found = {"pair accuracy": accuracy.pooled, "pair accuracy per prompt": accuracy.per_prompt}
    rows, ranks, prompts = ranked_whole(pairs)
    values = [scores[row] for row in rows]
    for k in TOPS:
        if any(prompts.count(key) > k for key in set(prompts)) and not np.isnan(values).any():
            found[f"recall@{k}"] = recall_at_k(values, ranks, prompts, k)
            found[f"filter@{k}"] = filter_at_k(values, ranks, prompts, k)
    return {name: asdict(interval) for name, interval in found.items()}


def ranked_whole(pairs: Sequence[Pair]) -> tuple[list[Row], list[float], list[str]]:
    """Rows, ranks and prompts of those prompts whose every two pictures were compared; rank: less for more wins, a
    tie being half of one, each couple counting once."""
    couples: dict[str, dict[tuple[Row, Row], list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        a, b = (pair.image_a, pair.prompt.text), (pair.image_b, pair.prompt.text)
        turned = str(a) > str(b)
        said = 1 - pair.preference if turned else pair.preference
        couples[prompt_key(pair)][(b, a) if turned else (a, b)].append(said)
    rows, ranks, prompts = [], [], []
    for key, compared in couples.items():
        wins: dict[Row, float] = defaultdict(float)
        for (a, b), votes in compared.items():
            share = sum(votes) / len(votes)
            wins[a] += share
            wins[b] += 1 - share
        if len(compared) == len(wins) * (len(wins) - 1) // 2:
            rows += list(wins)
            ranks += [-w for w in wins.values()]
            prompts += [key] * len(wins)
    return rows, ranks, prompts
