"""What the simulated raters of imagereward.py see: six pictures of each prompt of the emoji world, and their worth.

As in `workflows/simulated_votes.py`, two pictures of a prompt show it and a third does with a fault, two have a fact
wrong (one of them degraded) and one is of another scene. For the first 900 prompts three of the six are tiny-flow's
own. Two sets are only measured on: rows 0 to 299, with tiny-flow's pictures, and rows 900 to 1199 without. Training
takes from the rest, where 600 prompts have tiny-flow's pictures. The raters' noise is one number for all: two of them
agree on `AGREEMENT` of the pairs of rows 0 to 299 (65.3 % in ImageReward, arXiv 2304.05977, Table 2).

Letters: P prompts; 6 pictures and 15 pairs of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tastemaker import load_generator
from tastemaker.data.pairs import Pair
from tastemaker.picture_bytes import from_bytes
from tastemaker.randomness import mix
from tastemaker.records import Prompt
from tastemaker.workflows import simulated_votes as votes
from tastemaker.world.grammar import prompt_of, spec_of
from tastemaker.world.raters import Taste, ceiling, choice_probabilities, vote

AGREEMENT = 0.653
EACH = votes.EACH
A, B = (torch.tensor(side) for side in zip(*combinations(range(EACH), 2)))  # (15,) places of every pair
GENERATED = 900  # prompts with pictures of the generator
OWN, DRAWN = range(300), range(900, 1200)  # measured on: with the generator's own pictures, and without
CHUNK = 100  # prompts of a file
WORLD = 20_260  # seed of the prompts


@dataclass(frozen=True)
class Pool:
    """pictures (P, 6, 3, 64, 64) uint8; worth (P, 6) float64, the raters' utility of each."""

    prompts: Sequence[Prompt]
    pictures: Tensor
    worth: Tensor
    taste: Taste

    def picture(self, name: object) -> Tensor:
        """(3, 64, 64) in [0, 1] of `PROMPT-PLACE`."""
        return from_bytes(self.pictures[self.place(name)])

    @staticmethod
    def place(name: object) -> tuple[int, int]:
        """Prompt and place of `PROMPT-PLACE`."""
        row, place = str(name).split("-")
        return int(row), int(place)

    def unseen(self) -> list[int]:
        """Rows whose words are not among the measured prompts', but for the 18 single objects that there are."""
        measured = {self.prompts[k].text for k in (*OWN, *DRAWN) if k < len(self.prompts) and not self._single(k)}
        rows = (k for k in range(len(self.prompts)) if k not in OWN and k not in DRAWN)
        return [k for k in rows if self.prompts[k].text not in measured]

    def _single(self, row: int) -> bool:
        return (self.prompts[row].spec or {}).get("tag") == "single_object"

    def votes(self, rows: Sequence[int], seed: int) -> list[Pair]:
        """One rater's vote on each of the 15 pairs of these prompts."""
        worth = self.worth[list(rows)]
        seeds = [mix(seed, row, k) for row in rows for k in range(len(A))]
        said = vote(worth[:, A].reshape(-1), worth[:, B].reshape(-1), self.taste, seeds)
        places = [(row, int(a), int(b)) for row in rows for a, b in zip(A, B)]
        return [
            Pair(self.prompts[row], str(row), f"{row}-{a}", f"{row}-{b}", votes.PREFERENCE[choice])
            for (row, a, b), choice in zip(places, said)
        ]

    def first_preferred(self, rows: Sequence[int]) -> Tensor:
        """(P, 15): the chance that a rater takes the first picture of each pair."""
        worth = self.worth[list(rows)]
        first, second = worth[:, A].reshape(-1), worth[:, B].reshape(-1)
        return choice_probabilities(first, second, self.taste)[:, 0].view(len(worth), -1)

    def ceiling(self, pairs: Sequence[Pair]) -> float:
        """Of the accuracy on these pairs, see `world.raters.ceiling`."""
        at = [[self.place(name) for name in (p.image_a, p.image_b)] for p in pairs]
        first, second = (torch.stack([self.worth[place] for place in side]) for side in zip(*at))
        return ceiling(first, second, self.taste)


def build(count: int, cache: Path) -> Pool:
    """The first `count` prompts, read from the cache where they were made before. Some minutes for the first 900."""
    cache.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, CHUNK)
    shown = track(starts, "pictures and what raters think of them", console=Console(stderr=True))
    parts = [stored(cache / f"pictures-{i:05d}", partial(chunk, i)) for i in shown]
    pictures, worth = (torch.cat([part[name] for part in parts])[:count] for name in ("pictures", "worth"))
    measured = worth[OWN.start : OWN.stop]
    noise = votes.noise_for(measured[:, A].reshape(-1), measured[:, B].reshape(-1), Taste(), AGREEMENT)
    return Pool([prompt(k) for k in range(count)], pictures, worth, replace(Taste(), noise=noise))


def prompt(k: int) -> Prompt:
    return prompt_of(spec_of(mix(WORLD, k)))


def chunk(first: int) -> dict[str, Tensor]:
    """Pictures and worth of CHUNK prompts from `first` on."""
    seed, prompts = mix(WORLD, first), [prompt(k) for k in range(first, first + CHUNK)]
    made = votes.pictures_of(prompts, seed)
    if first < GENERATED:
        votes.replace_half(made, prompts, load_generator("tiny-flow"), seed)
    images = torch.stack([made[f"{k}-{i}"] for k in range(CHUNK) for i in range(EACH)])
    worth = votes.utilities(images.unbind(), [p for p in prompts for _ in range(EACH)], Taste())
    return {"pictures": images.unflatten(0, (-1, EACH)), "worth": worth.double().view(-1, EACH)}


def stored(
    path: Path, make: Callable[[], dict[str, Tensor]], told: dict[str, str] | None = None
) -> dict[str, Tensor]:
    """The tensors in the file, or made now and written whole. told: the file is made again where it was written with
    another; None: any is good."""
    file = path.with_suffix(".safetensors")
    if not file.is_file() or (told is not None and metadata(file) != told):
        save_file({name: value.contiguous() for name, value in make().items()}, path.with_suffix(".part"), told)
        path.with_suffix(".part").rename(file)
    return load_file(file)


def metadata(file: Path) -> dict[str, str] | None:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def expected_accuracy(scores: Tensor, chances: Tensor) -> np.ndarray:
    """(P,): the share of a prompt's pairs on which a rater agrees with these scores (P, 6), over all votes that the
    raters may cast, whose chances (P, 15) are known. An equal score counts half."""
    margin = scores[:, A] - scores[:, B]
    right = torch.where(margin > 0, chances, 1 - chances)
    return torch.where(margin == 0, 0.5, right).double().mean(1).numpy()
