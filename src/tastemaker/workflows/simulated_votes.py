"""Votes of simulated raters on pictures of the emoji world: what `train reward-model` learns from without --data.

Each prompt has six pictures, as good and bad as a generator's may be: two that show it, one of these degraded, two
with one fact wrong (one of them degraded), and one of another scene; with a generator, half of them are its own. Each
pair gets one vote of a rater who agrees with another as often as asked (people do in 65 of 100 cases, ImageReward,
arXiv 2304.05977, Table 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..data.pairs import PREFERENCE, Pair
from ..picture_bytes import as_bytes, from_bytes
from ..protocols import Generator, Reward
from ..randomness import mix, stream
from ..records import Prompt
from ..rewards.harmony import Harmony
from ..rewards.sharpness import Sharpness
from ..sampling import sample
from ..world.check import Alignment
from ..world.degrade import KINDS
from ..world.grammar import prompt_of, spec_of, swapped
from ..world.raters import Taste, ceiling, choice_probabilities, utility, vote
from ..world.scenes import SIZE, compose, draw
from .judged import Judged

EACH = 6  # pictures of a prompt


def simulated_votes(
    prompts: int,
    agreement: float = 0.65,
    seed: int = 0,
    taste: Taste | None = None,
    generator: Generator | None = None,
    size: int = SIZE,
) -> Judged:
    """One vote on each of the 15 pairs of every prompt. generator: half of the pictures are its own.

    The taste's noise is set so that two raters agree with the given probability on the decided pairs.
    """
    wanted = [prompt_of(spec_of(mix(seed, k))) for k in range(prompts)]
    pictures = pictures_of(wanted, seed, size)
    if generator is not None:
        replace_half(pictures, wanted, generator, seed)
    names = list(pictures)
    values = utilities([pictures[n] for n in names], [wanted[_prompt(n)] for n in names], taste or Taste())
    worth = dict(zip(names, values.tolist()))
    couples = [(f"{k}-{i}", f"{k}-{j}") for k in range(prompts) for i, j in combinations(range(EACH), 2)]
    a, b = sides(couples, worth)
    taste = replace(taste or Taste(), noise=noise_for(a, b, taste or Taste(), agreement))
    choices = vote(a, b, taste, [mix(seed, 2, k) for k in range(len(couples))])
    pairs = [
        Pair(wanted[_prompt(x)], str(_prompt(x)), x, y, PREFERENCE[choice])
        for (x, y), choice in zip(couples, choices)
    ]

    def best(chosen: Sequence[Pair]) -> float:
        return ceiling(*sides([(str(p.image_a), str(p.image_b)) for p in chosen], worth), taste)

    return Judged(tuple(pairs), lambda name: from_bytes(pictures[str(name)]), best)


def _prompt(name: str) -> int:
    return int(name.split("-")[0])


def sides(couples: Sequence[tuple[str, str]], worth: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """The utilities of both pictures of each couple, (B,) float64 each."""
    a, b = zip(*((worth[x], worth[y]) for x, y in couples))
    return torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)


def pictures_of(prompts: Sequence[Prompt], seed: int, size: int = SIZE) -> dict[str, Tensor]:
    """(3, S, S) uint8 by name, `PROMPT-PLACE`; the places of a prompt are shuffled."""
    found = {}
    for k, prompt in enumerate(prompts):
        rng = stream(mix(seed, k), purpose="simulated pictures")
        spec, other = dict(prompt.spec or {}), spec_of(mix(seed, k, 1))
        wrong = [swapped(spec, mix(seed, k, 2 + i)) for i in range(2)]
        shown = [(spec, False), (spec, False), (spec, True), (wrong[0], False), (wrong[1], True), (other, False)]
        for place, (which, spoilt) in zip(rng.permutation(EACH), shown):
            picture = draw(compose(which, mix(seed, k, int(place), 9)), size)
            if spoilt:
                picture = KINDS[int(rng.integers(len(KINDS)))](picture, rng)
            found[f"{k}-{place}"] = as_bytes(torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))))
    return found


def replace_half(pictures: dict[str, Tensor], prompts: Sequence[Prompt], generator: Generator, seed: int) -> None:
    """Places 0 to 2 of every prompt become the generator's pictures."""
    for i in range(EACH // 2):
        seeds = [mix(seed, k, i, 5) % 2**31 for k in range(len(prompts))]
        for k, image in enumerate(sample(generator, prompts, seeds)):
            pictures[f"{k}-{i}"] = as_bytes(image)


def utilities(pictures: Sequence[Tensor], prompts: Sequence[Prompt], taste: Taste, batch: int = 128) -> Tensor:
    """(N,) of what raters see: the bytes."""
    rewards: list[Reward] = [Alignment(), Sharpness(), Harmony()]
    parts = []
    for i in range(0, len(pictures), batch):
        images = from_bytes(torch.stack(list(pictures[i : i + batch])))
        with torch.no_grad():
            parts.append(utility(rewards, taste, images, prompts[i : i + batch]))
    return torch.cat(parts)


def agreement_of(a: Tensor, b: Tensor, taste: Taste) -> float:
    """How often two raters say the same of a pair that both decide, from their utilities (B,)."""
    p = choice_probabilities(a, b, taste)[:, :2]
    both = p.sum(1) ** 2
    return float((p**2).sum() / both.sum())


def noise_for(a: Tensor, b: Tensor, taste: Taste, agreement: float) -> float:
    """The noise at which two raters agree so often, by bisection of its logarithm; the highest or lowest tried where
    the pairs do not allow it."""
    low, high = np.log(1e-3), np.log(1e3)
    for _ in range(60):
        middle = (low + high) / 2
        agrees = agreement_of(a, b, replace(taste, noise=float(np.exp(middle))))
        low, high = (middle, high) if agrees > agreement else (low, middle)
    return float(np.exp((low + high) / 2))
