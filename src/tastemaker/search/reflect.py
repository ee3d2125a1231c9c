"""Reflection (PARM++): look at the end, say what is wrong, draw again, and keep what is better (Guo et al. 2025,
arXiv 2501.13926, section 5).

After PARM has chosen, the verifier judges the picture. Where it finds no fault (a score of at least `accept`) nothing
more is done. Else it says what is wrong, and the picture is drawn again, in one of four ways:

| way | what happens |
|---|---|
| `redraw` | a new path of the same prompt, and nothing is said: what the other ways have to be better than |
| `rewrite` | the prompt is written anew from the critique, and a new path is drawn for it |
| `remask` | the tokens of the regions at fault are masked, and filled in again while all others stay |
| `correct` | the same, by the prompt written anew: for a generator of `train self-correction` |

At most `rounds` times. A new picture takes the place of the old one only if its score, by the prompt as it was asked,
is higher; NaN never is. The paper feeds picture and reasons to a generator tuned for it. `remask` needs no training,
and is native to masked tokens; which regions are at fault, the verifier's `faults(images, prompts) -> (B, h, w)`
says, a probability for each. Letters: B prompts, N paths of each, M pictures at fault, N' tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..critique import emphasised
from ..errors import TastemakerError, UnknownName, expect
from ..picture_bytes import as_bytes
from ..protocols import Generator, Plan, State
from ..randomness import mix
from ..records import Ledger, Prompt
from . import parm
from .selected import Look, Redrawn, Selected, shown
from .walk import Walk, candidates, in_batches, walking

Rewrite = Callable[[Prompt, str], Prompt]


@dataclass(frozen=True)
class Config:
    """PARM++: search first, then reflect."""

    n: int = 8
    """N: paths of each prompt and seed before the first reflection"""
    rounds: int = 3
    """reflections at most"""
    way: str = "remask"
    """how a picture is drawn again: redraw, rewrite, remask or correct"""
    accept: float = 0.0
    """a score at which nothing is wrong: of log-odds, 0 is as likely yes as no"""
    fault: float = 0.5
    """P(fault) above which a region is masked"""
    most: float = 0.6
    """share of the tokens that is masked at most, the likeliest faults first, in (0, 1]"""
    every: int = 1
    """steps between two looks of the search before"""
    first_look: float = 0.0
    """share of the steps before which nobody looks"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1 and self.rounds >= 0, "n of at least 1, rounds of at least 0", f"{self.n}, {self.rounds}")
        if self.way not in WAYS:
            raise UnknownName("way to draw again", self.way, WAYS)
        expect(0 < self.most <= 1 and 0 <= self.fault <= 1, "most in (0, 1], fault in [0, 1]", self.most)


def search(
    generator: Generator,
    verifier: Any,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    config: Config,
    ledger: Ledger,
    plan: Plan | None = None,
    guidance: float | None = None,
    rewrite: Rewrite | None = None,
) -> Iterator[Selected]:
    """A batch of prompts a turn; candidates are the N of PARM and then the `rounds` redrawn ones. seeds: one per
    prompt. rewrite: by default `critique.emphasised`. Raises TastemakerError for a verifier without critique, or
    without regions, and for `remask` and `correct` of a generator without tokens."""
    parm.require_previews(verifier)
    require_critic(verifier, generator, config.way)
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            first = parm.judged_paths(walk, own, numbers, before(config))
            yield Reflection(walk, own, numbers, config, rewrite or emphasised).improve(first)


def before(config: Config) -> parm.Config:
    """The search whose result is reflected on."""
    return parm.Config(config.n, config.every, config.first_look, batch_size=config.batch_size)


def require_critic(verifier: Any, generator: Any, way: str) -> None:
    """Raise TastemakerError where the verifier cannot say, or the generator not do, what the way needs."""
    for needs in NEEDS[way]:
        if not hasattr(verifier, needs):
            raise TastemakerError(
                f"'{verifier.name}' has no `{needs}`, which way={way} needs; take judge, or one of `train judge`, "
                "or for rewrite a vision-language model"
            )
    if "faults" in NEEDS[way] and not hasattr(generator, "logits"):
        raise TastemakerError(f"way={way} needs a masked-token generator; take way=rewrite or redraw")


@dataclass(frozen=True)
class Anew:
    """M pictures that were drawn again."""

    critique: list[str]
    words: list[str]  # for the strip: the critique, and how much was masked
    images: Tensor  # (M, 3, H, W)
    x: Tensor  # (M, ...) their ends
    regions: Tensor | None = None  # (M, G, G) bool: what was masked


@dataclass
class Reflection:
    """The rounds of one batch of prompts."""

    walk: Walk
    prompts: Sequence[Prompt]
    seeds: Tensor
    config: Config
    rewrite: Rewrite
    table: Tensor = field(init=False)  # (B, N + rounds)
    pictures: Tensor = field(init=False)
    looks: list[list[list[Look]]] = field(init=False)
    chosen: Tensor = field(init=False)  # (B,)
    images: Tensor = field(init=False)  # (B, 3, H, W), the best so far
    score: Tensor = field(init=False)  # (B,)
    x: Any = field(init=False)  # (B, ...), the ends of the best so far
    redrawn: list[list[Redrawn]] = field(init=False)

    def improve(self, first: Selected) -> Selected:
        """The outcome with the redrawn pictures behind the N that were chosen from."""
        self.table = _widened(first.scores, self.config.rounds, torch.nan)
        self.pictures = _widened(first.pictures, self.config.rounds, 0)
        self.looks = [[*map(list, one), *([] for _ in range(self.config.rounds))] for one in first.looks]
        self.chosen, self.images, self.x = first.chosen.clone(), first.images.clone(), first.x
        self.redrawn = [[] for _ in self.prompts]
        self.score = first.scores[torch.arange(len(self.prompts)), first.chosen.clamp_min(0)].clone()
        for k in range(self.config.rounds):
            open_ = (self.score < self.config.accept).nonzero()[:, 0]  # without a score nothing can be better
            if len(open_):
                self._round(open_, k)
        looks = tuple(tuple(map(tuple, one)) for one in self.looks)
        kept = tuple(map(tuple, self.redrawn))
        return Selected(self.images, self.table, self.chosen, self.pictures, looks, self.x, kept)

    def _round(self, rows: Tensor, number: int) -> None:
        """Draw the pictures `rows` (M,) again, and keep those that are better."""
        anew = WAYS[self.config.way](self, rows, number)
        images = anew.images
        values = self.walk.score(images, [self.prompts[i] for i in rows.tolist()])
        column = self.config.n + number
        self.table[rows, column], self.pictures[rows, column] = values, as_bytes(images)
        better = values > self.score[rows]
        for i, row in enumerate(rows.tolist()):
            said = f"{anew.words[i]}: {float(values[i]):.2f}, {'kept' if better[i] else 'not better'}"
            self.looks[row][column].append(Look(self.walk.plan.steps, said, shown(images[i]), not better[i]))
            if better[i]:
                where = None if anew.regions is None else anew.regions[i].cpu()
                self.redrawn[row].append(Redrawn(int(self.chosen[row]), column, anew.critique[i], where))
        kept = rows[better]
        self.images[kept], self.score[kept], self.chosen[kept] = images[better], values[better], column
        self.x = self.x.index_copy(0, kept.to(self.x.device), anew.x[better.to(self.x.device)])


def _widened(values: Tensor, columns: int, fill: float) -> Tensor:
    """(B, N, ...) -> (B, N + columns, ...)."""
    more = torch.full((len(values), columns, *values.shape[2:]), fill, dtype=values.dtype)
    return torch.cat([values, more], 1)


def repeated(by: Reflection, rows: Tensor, number: int) -> Anew:
    """New pictures of the prompts as they are."""
    anew = _another_path(by, rows, number, [by.prompts[i] for i in rows.tolist()], [""] * len(rows))
    return replace(anew, words=["drawn again"] * len(rows))


def rewritten(by: Reflection, rows: Tensor, number: int) -> Anew:
    """New pictures of the prompts written anew."""
    prompts = [by.prompts[i] for i in rows.tolist()]
    said = by.walk.say("critique", by.images[rows], prompts)
    return _another_path(by, rows, number, _written_anew(by, prompts, said), said)


def _another_path(by: Reflection, rows: Tensor, number: int, asked: Sequence[Prompt], said: list[str]) -> Anew:
    state = _fresh(by, asked, rows, number)
    paths = by.walk.number(len(state))
    state = by.walk.finish(state, paths)
    return Anew(said, said, by.walk.look(state, paths), state.x)


def _written_anew(by: Reflection, prompts: Sequence[Prompt], said: Sequence[str]) -> list[Prompt]:
    """As they are where the generator could not read the new ones."""
    anew = [by.rewrite(p, w) for p, w in zip(prompts, said)]
    return [q if speaks(by.walk.generator, q) else p for p, q in zip(prompts, anew)]


def speaks(generator: Any, prompt: Prompt) -> bool:
    """Whether the generator can read the prompt."""
    vocabulary = getattr(generator, "vocabulary", None)
    try:
        return vocabulary is None or len(vocabulary.encode([prompt.text])) == 1
    except TastemakerError:
        return False


def remasked(by: Reflection, rows: Tensor, number: int) -> Anew:
    """The pictures with the regions at fault filled in again."""
    prompts, images = [by.prompts[i] for i in rows.tolist()], by.images[rows]
    faults = by.walk.say("faults", images, prompts)  # (M, h, w)
    said = by.walk.say("critique", images, prompts) if hasattr(by.walk.verifier, "critique") else [""] * len(images)
    return _filled_in(by, rows, number, faults, said, prompts)


def corrected(by: Reflection, rows: Tensor, number: int) -> Anew:
    """The pictures with the regions at fault filled in again, by the prompts written anew."""
    prompts, images = [by.prompts[i] for i in rows.tolist()], by.images[rows]
    faults, said = by.walk.say("faults", images, prompts), by.walk.say("critique", images, prompts)
    return _filled_in(by, rows, number, faults, said, _written_anew(by, prompts, said))


def _filled_in(
    by: Reflection, rows: Tensor, number: int, faults: Tensor, said: list[str], asked: Sequence[Prompt]
) -> Anew:
    state = _fresh(by, asked, rows, number)
    tokens = by.x[rows.to(by.x.device)]
    mask = regions(faults, tokens.shape[1], by.config.fault, by.config.most).to(tokens.device)
    begun = [masked_again(state[[k]], tokens[[k]], mask[[k]]) for k in range(len(state))]
    ends = [_refilled(by.walk, one, tokens[[k]]) for k, one in enumerate(begun)]
    images, x = (torch.cat(part) for part in zip(*ends))  # type: ignore[assignment]
    words = [f"{text} ({share:.0%} masked)".strip() for text, share in zip(said, mask.float().mean(1).tolist())]
    side = round(mask.shape[1] ** 0.5)
    return Anew(said, words, images, x, mask.unflatten(1, (side, side)))


def _refilled(walk: Walk, state: State, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The picture and its tokens, once the masked ones of a state (1,) are filled in."""
    paths, mask = walk.number(1), state.x != tokens
    while not state.done.all():
        state = known_again(walk.advance(state, paths), tokens, mask)
    return walk.look(state, paths), state.x


def known_again(state: State, tokens: Tensor, mask: Tensor) -> State:
    """The state with tokens (B, N') put back outside of the mask: a sampler that goes by reading order masks known
    ones again."""
    return replace(state, x=torch.where(mask, state.x, tokens))


def _fresh(by: Reflection, prompts: Sequence[Prompt], rows: Tensor, number: int) -> State:
    """A start for each, on a branch of its own."""
    state = candidates(by.walk.generator, prompts, by.seeds[rows], 1, by.walk.plan, by.walk.guidance)
    branch = torch.tensor([mix(int(s), 7, number) for s in state.seeds])
    return by.walk.generator.start(state.condition, state.seeds, by.walk.plan, branch)


def regions(faults: Tensor, tokens: int, least: float, most: float) -> Tensor:
    """(M, h, w) probabilities -> (M, N') bool over a square grid of tokens: those above `least`, at most the share
    `most` of all, the likeliest first; where none is above it, the likeliest one. NaN counts as 0."""
    side = round(tokens**0.5)
    grid = F.interpolate(faults.nan_to_num(0)[:, None].float(), (side, side), mode="bilinear", antialias=True)
    flat = grid.flatten(1)
    place = flat.sort(dim=1, descending=True, stable=True).indices.argsort(1)  # 0 is the likeliest
    return ((flat > least) & (place < max(1, int(most * tokens)))) | (place == 0)


def masked_again(state: State, tokens: Tensor, mask: Tensor) -> State:
    """A fresh state (1,) that knows all tokens (1, N') but the masked ones, at the first step after which the plan
    has no more of them masked. Their order puts the masked ones last."""
    share = float(mask.float().mean())
    times = state.plan.times
    step = next(k for k in range(len(times) - 1) if 1 - times[k + 1] < share or k == len(times) - 2)
    x = torch.where(mask, state.x, tokens)  # a fresh x is all masks
    order = (state.memory["order"] + mask * mask.shape[1]).argsort(1).argsort(1)
    memory = {**state.memory, "drawn": tokens, "order": order}
    return replace(state, x=x, step=torch.full_like(state.step, step), memory=memory)


WAYS = {"redraw": repeated, "rewrite": rewritten, "remask": remasked, "correct": corrected}
NEEDS = {  # of the verifier
    "redraw": (),
    "rewrite": ("critique",),
    "remask": ("faults",),
    "correct": ("faults", "critique"),
}
