"""PARM: judge a path when its preview is clear, cut it off when it leads nowhere, choose among those that are left.

Potential Assessment Reward Model (Guo et al. 2025, arXiv 2501.13926, section 4). After every step each path is asked:

1. clarity: can the preview be judged? Where not, the path goes on unasked.
2. potential, at each clear step: can it become what the prompt says? Where not, the path ends there.
3. best-of-N': of the N' paths that are left, the end that the verifier likes best.

"Yes" is a probability above one half, the verifier's own answer. In the paper, where no path is left, the one with
the least P(no) wins; since a path that was cut off has no end to show, the last paths of a prompt are not cut off all
at once: the one with the highest potential stays and is asked no more.

The release asks for potential once, at the first clear step, and never cuts a path off: all N run to the end, and
those refused are left out of the choice. `prune=False` does that. Letters: B prompts, N candidates, M paths under
way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..protocols import Generator, Plan, State, Verifier
from ..records import Ledger, Prompt
from .selected import Look, Selected, gathered, shown
from .walk import Walk, in_batches, walking


@dataclass(frozen=True)
class Config:
    """PARM."""

    n: int = 20
    """N: paths of each prompt and seed"""
    every: int = 1
    """steps between two looks"""
    first_look: float = 0.0
    """share of the steps before which nobody looks; `search calibrate` measures from when on previews foretell"""
    least_clarity: float = 0.5
    """P(clear) above which a preview is judged"""
    least_potential: float = 0.5
    """P(potential) below which a path is cut off"""
    prune: bool = True
    """cut paths off; false: as the release, which asks once and runs all to the end"""
    batch_size: int = 64
    """pictures at once"""

    def __post_init__(self) -> None:
        expect(self.n >= 1 and self.every >= 1, "n and every of at least 1", f"{self.n} and {self.every}")
        shares = (self.first_look, self.least_clarity, self.least_potential)
        expect(all(0 <= v <= 1 for v in shares), "first_look, least_clarity and least_potential in [0, 1]", shares)


def search(
    generator: Generator,
    verifier: Verifier,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    config: Config,
    ledger: Ledger,
    plan: Plan | None = None,
    guidance: float | None = None,
) -> Iterator[Selected]:
    """A batch of prompts a turn; the ledger grows as it goes. seeds: one per prompt. Raises TastemakerError for a
    verifier that does not judge previews."""
    require_previews(verifier)
    with walking(generator, verifier, ledger, config.batch_size, plan, guidance) as walk:
        for own, numbers in in_batches(prompts, seeds, config.n, config.batch_size):
            yield judged_paths(walk, own, numbers, config)


def judges_previews(verifier: object) -> bool:
    """Whether the verifier answers for clarity and potential."""
    return hasattr(verifier, "clear") and hasattr(verifier, "potential")


def require_previews(verifier: object) -> None:
    """Raise TastemakerError unless the verifier judges previews."""
    if not judges_previews(verifier):
        raise TastemakerError(
            f"'{getattr(verifier, 'name', verifier)}' scores pictures and does not judge previews; expected a "
            "verifier with `clear` and `potential`, such as judge, vlm:FOLDER or orm:URL"
        )


def judged_paths(walk: Walk, prompts: Sequence[Prompt], seeds: Tensor, config: Config) -> Selected:
    """One batch of prompts."""
    state, paths = walk.start(prompts, seeds, config.n)
    gate = Gate(walk, config, len(prompts))
    places = torch.arange(len(state))  # prompt x N + candidate
    while not state.done.all():
        state = walk.advance(state, paths)
        if not state.done.all() and due(state, config):
            keep = gate.look(state, paths, places)
            walk.cut(paths[~keep])
            state, paths, places = state[keep], paths[keep], places[keep]
    images, scores = walk.ends(state, paths)
    scores = scores.masked_fill(gate.out[places], torch.nan)
    return gathered(len(prompts), config.n, places, images, scores, gate.looks, state.x)


def due(state: State, config: Config) -> bool:
    """Whether this is a step at which the paths are looked at."""
    step = int(state.step[0])
    return step % config.every == 0 and step >= config.first_look * state.plan.steps


class Gate:
    """What is known of every path of a batch: asked no more, refused, and all that was said."""

    def __init__(self, walk: Walk, config: Config, prompts: int):
        self.walk, self.config, count = walk, config, prompts * config.n
        self.silent = torch.zeros(count, dtype=torch.bool)  # asked no more
        self.out = torch.zeros(count, dtype=torch.bool)  # refused, without having been cut off
        self.worth = torch.full((count,), -torch.inf)  # the last potential
        self.looks: list[list[Look]] = [[] for _ in range(count)]

    def look(self, state: State, paths: Tensor, places: Tensor) -> Tensor:
        """Ask about the paths that are still asked; (M,) bool, which of all go on."""
        asked = (~self.silent[places]).nonzero()[:, 0]
        keep = torch.ones(len(places), dtype=torch.bool)
        if len(asked):
            keep[asked] = self._judge(state[asked], paths[asked], places[asked])
            self._spare(keep, places)
            self._mark(places[~keep])
        if not self.config.prune:
            self.out[places[~keep]] = True
            return torch.ones_like(keep)
        return keep

    def _judge(self, state: State, paths: Tensor, places: Tensor) -> Tensor:
        """(m,) bool: not clear, or clear and with potential. No answer is no reason to cut a path off."""
        images = self.walk.look(state, paths)
        clarity = self.walk.clear(images, state)
        potential = torch.full_like(clarity, torch.nan)
        clear = (clarity > self.config.least_clarity).nonzero()[:, 0]
        if len(clear):
            potential[clear] = self.walk.promise(images[clear], state[clear])
        for k, place in enumerate(places.tolist()):
            words = f"clear {float(clarity[k]):.2f}"
            words += "" if potential[k].isnan() else f", potential {float(potential[k]):.2f}"
            self.looks[place].append(Look(int(state.step[k]), words, shown(images[k])))
        known = ~potential.isnan()
        self.worth[places[known]] = potential[known]
        if not self.config.prune:
            self.silent[places[known]] = True  # the release asks once
        return ~(potential < self.config.least_potential)

    def _spare(self, keep: Tensor, places: Tensor) -> None:
        """Of a prompt whose paths would all be gone, the one with the highest potential goes on, asked no more."""
        alive, prompt = keep & ~self.out[places], places // self.config.n
        for one in prompt.unique().tolist():
            own = (prompt == one).nonzero()[:, 0]
            if not alive[own].any():
                best = own[self.worth[places[own]].argmax()]
                keep[best], self.silent[places[best]], self.out[places[best]] = True, True, False

    def _mark(self, places: Tensor) -> None:
        for place in places.tolist():
            last = self.looks[place][-1]
            self.looks[place][-1] = Look(last.step, last.words, last.picture, cut=True)
