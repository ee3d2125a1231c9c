"""What every search on trajectories does alike: start candidates, take steps, look, ask; and the account of it.

A walk has numbered paths. Each network evaluation belongs to one of them, so that a path that was cut off can be
shown to have cost nothing since: the ledger counts where the network is called, not where the search believes it
calls it. FLOPs are counted on the first call of each kind and multiplied.

Letters: B prompts, N candidates of each, M paths under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import TastemakerError, expect
from ..protocols import Condition, Generator, Plan, Reward, State
from ..randomness import mix
from ..records import Ledger, Prompt
from ..sampling import score_checked
from .ledger import NetworkClock, counted, now

T = TypeVar("T")
GENERATOR, DECODER, VERIFIER = "generator", "decoder", "verifier"


def candidates(
    generator: Generator, prompts: Sequence[Prompt], seeds: Tensor, n: int, plan: Plan | None, guidance: float
) -> State:
    """The N starts of each prompt, side by side: candidate 0 is the plain one."""
    state = generator.start(Condition.of(prompts, guidance), seeds, plan).fork(n)
    return generator.start(state.condition, state.seeds, plan, state.branch)


def redrawn(state: State, rows: Tensor) -> State:
    """The particles `rows` (M,) of a state. Where one stands several times, the first goes on as it would have, and
    the others part from it at the next step."""
    seen: dict[int, int] = {}
    drawn, branch = state[rows], []
    for row, *words in zip(rows.tolist(), drawn.branch.tolist(), drawn.step.tolist(), drawn.forks.tolist()):
        child = seen[row] = seen.get(row, -1) + 1
        branch.append(words[0] if child == 0 else mix(*words, child))
    return replace(drawn, branch=torch.tensor(branch), forks=drawn.forks + 1)


def thinned(plan: Plan, steps: int) -> Plan:
    """The plan in fewer steps, at times of its own. Raises TastemakerError for more steps than it has."""
    expect(1 <= steps <= plan.steps, f"from 1 to {plan.steps} steps, those of the full plan", steps)
    return replace(plan, times=tuple(plan.times[round(k * plan.steps / steps)] for k in range(steps + 1)))


class Walk:
    """Calls in batches, each with its account. Made by `walking`."""

    def __init__(
        self,
        generator: Any,
        verifier: Reward,
        ledger: Ledger,
        batch_size: int,
        plan: Plan | None = None,
        guidance: float | None = None,
    ):
        expect(batch_size >= 1, "a batch_size of at least 1", batch_size)
        self.generator, self.verifier, self.ledger, self.batch_size = generator, verifier, ledger, batch_size
        self.plan = plan or generator.plan
        self.guidance = getattr(generator, "guidance", 1.0) if guidance is None else guidance
        self.device = getattr(generator, "device", torch.device("cpu"))
        self.clock = NetworkClock()
        self.spent: list[int] = []  # network evaluations of each path
        self.cut_at: dict[int, int] = {}  # what it had cost when it was cut off
        self._flops: dict[str, float] = {}  # per network row, decoded picture or answer

    # trajectories

    def start(
        self, prompts: Sequence[Prompt], seeds: Tensor, n: int, plan: Plan | None = None
    ) -> tuple[State, Tensor]:
        """N paths of each prompt, (B N), and their numbers (B N,)."""
        plan = plan or self.plan
        began = now(self.device)
        state, flops = counted(lambda: candidates(self.generator, prompts, seeds, n, plan, self.guidance))
        self._note(GENERATOR, began, flops)
        return state, self.number(len(state))

    def number(self, count: int) -> Tensor:
        """Numbers of as many new paths."""
        first = len(self.spent)
        self.spent += [0] * count
        return torch.arange(first, first + count)

    def advance(self, state: State, paths: Tensor) -> State:
        """One step of every particle."""
        parts = [self._advance(state[rows], paths[rows]) for rows in self._rows(len(state))]
        return parts[0] if len(parts) == 1 else State.concatenate(parts)

    def finish(self, state: State, paths: Tensor) -> State:
        """To the end of the plan."""
        while len(state) and not state.done.all():
            state = self.advance(state, paths)
        return state

    def ends(self, state: State, paths: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures at the end of the plan, (M, 3, H, W), and their scores (M,)."""
        images = self.look(self.finish(state, paths), paths)
        return images, self.score(images, state.condition.prompts)

    def look(self, state: State, paths: Tensor) -> Tensor:
        """The pictures as they would be, or are, (M, 3, H, W) in [0, 1] on the host."""
        return torch.cat([self._look(state[rows], paths[rows]) for rows in self._rows(len(state))])

    def cut(self, paths: Tensor) -> None:
        """These paths end here."""
        self.cut_at |= {p: self.spent[p] for p in paths.tolist()}

    def keep_only(self, paths: Tensor, rows: Tensor) -> None:
        """All other paths than those in these rows end here."""
        lost = torch.ones(len(paths), dtype=torch.bool)
        lost[rows] = False
        self.cut(paths[lost])

    # the verifier

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(M,), NaN where there is no score."""
        return self._ask("score", images, prompts)

    def clear(self, images: Tensor, state: State) -> Tensor:
        """P(the preview can be judged), (M,)."""
        return self._ask("clear", images, state.condition.prompts, state.step / state.plan.steps)

    def promise(self, images: Tensor, state: State) -> Tensor:
        """P(the path leads to what was asked), (M,), or the score of the preview where the verifier has none."""
        if not hasattr(self.verifier, "potential"):
            return self.score(images, state.condition.prompts)
        return self._ask("potential", images, state.condition.prompts, state.step / state.plan.steps)

    def _ask(
        self, question: str, images: Tensor, prompts: Sequence[Prompt], progress: Tensor | None = None
    ) -> Tensor:
        parts = []
        for rows in self._rows(len(images)):
            own = [prompts[i] for i in rows.tolist()]
            more = () if progress is None else (progress[rows],)
            parts.append(self._answer(question, images[rows], own, more))
        return torch.cat(parts)

    def _answer(self, question: str, images: Tensor, prompts: Sequence[Prompt], more: tuple) -> Tensor:
        asked: Any = _Question(self.verifier, question, more)
        answers = self._computed(question, len(images), lambda: score_checked(asked, images, prompts).cpu())
        self._reasons(int(answers.isnan().sum()))
        return answers

    def say(self, question: str, images: Tensor, prompts: Sequence[Prompt]) -> Any:
        """What the verifier's `critique` or `faults` gives."""
        return self._computed(question, len(images), lambda: getattr(self.verifier, question)(images, prompts))

    def _computed(self, question: str, count: int, call: Callable[[], T]) -> T:
        """The verifier's answer; those that it did not have to compute cost nothing."""
        began, before = now(self.device), getattr(self.verifier, "computed", 0)
        answer, flops = self._first(question, call)
        computed = getattr(self.verifier, "computed", before + count) - before
        self._flops_per(question, flops, computed)
        self._note(VERIFIER, began, computed * self._flops.get(question, 0.0))
        self.ledger.verifier_calls += computed
        return answer

    def _reasons(self, missing: int) -> None:
        """Why there was no answer, taken from a verifier that says so."""
        said = getattr(self.verifier, "unanswered", None)
        found = dict(said) if said else {"no reason given": missing} if missing else {}
        if said:
            said.clear()
        for reason, count in found.items():
            self.ledger.unanswered[reason] = self.ledger.unanswered.get(reason, 0) + count

    # the account

    def _rows(self, count: int) -> Iterator[Tensor]:
        return iter(torch.arange(count).split(self.batch_size)) if count else iter([torch.arange(0)])

    def _advance(self, state: State, paths: Tensor) -> State:
        began, rows = now(self.device), self.clock.rows
        after, flops = self._first("step", lambda: self.generator.advance(state))
        done = self.clock.rows - rows
        self._flops_per("step", flops, done)
        self._charge(paths, done)
        self._note(GENERATOR, began, done * self._flops.get("step", 0.0))
        return after

    def _look(self, state: State, paths: Tensor) -> Tensor:
        began, rows, inside = now(self.device), self.clock.rows, self.clock.seconds
        images, flops = self._first("look", lambda: self._decoded(state))
        done, network = self.clock.rows - rows, self.clock.seconds - inside
        of_network = done * self._flops.get("step", 0.0)
        self._flops_per("look", None if flops is None else flops - of_network, len(state))
        self._charge(paths, done)
        self._note(DECODER, began + network, len(state) * self._flops.get("look", 0.0))
        if done:
            self.ledger.add(GENERATOR, network)
            self._add_flops(GENERATOR, of_network)
        self.ledger.decoder_calls += len(state)
        return images

    @torch.no_grad()
    def _decoded(self, state: State) -> Tensor:
        return self.generator.preview(state).clamp(0, 1).float().cpu()

    def _first(self, kind: str, call: Callable[[], T]) -> tuple[T, float | None]:
        """The result, and its FLOPs as long as those of this kind are not known."""
        return (call(), None) if kind in self._flops else counted(call)

    def _flops_per(self, kind: str, flops: float | None, count: int) -> None:
        if flops is not None and count:
            self._flops[kind] = max(flops, 0.0) / count

    def _charge(self, paths: Tensor, evaluations: int) -> None:
        each, left = divmod(evaluations, max(len(paths), 1))
        if left:
            raise AssertionError(f"{evaluations} network evaluations of {len(paths)} paths: some belong to none")
        self.ledger.network_evaluations += evaluations
        for path in paths.tolist():
            self.spent[path] += each
            self.ledger.evaluations_after_pruning += each * (path in self.cut_at)

    def _note(self, part: str, began: float, flops: float) -> None:
        self.ledger.add(part, now(self.device) - began)
        self._add_flops(part, flops)

    def _add_flops(self, part: str, flops: float) -> None:
        self.ledger.flops_by_part[part] = self.ledger.flops_by_part.get(part, 0.0) + flops


class _Question:
    """One of a verifier's questions in the shape of a reward, so that its mistakes are named alike."""

    def __init__(self, verifier: Reward, question: str, more: tuple):
        self.name, self.ask, self.more = verifier.name, getattr(verifier, question), more

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return self.ask(images, prompts, *self.more)


@contextmanager
def walking(
    generator: Any, verifier: Reward, ledger: Ledger, batch_size: int, plan: Plan | None, guidance: float | None
) -> Iterator[Walk]:
    """A walk whose clock hangs on the network as long as the block runs; then the ledger gets its sums.

    Raises AssertionError, a mistake of ours, where a network evaluation belongs to no path, or a path that was cut
    off has cost anything since."""
    walk = Walk(generator, verifier, ledger, batch_size, plan, guidance)
    with walk.clock.on(generator.network):
        yield walk
    ledger.paths += len(walk.spent)
    ledger.pruned += len(walk.cut_at)
    dead = {p: (walk.spent[p], cost) for p, cost in walk.cut_at.items() if walk.spent[p] != cost}
    if walk.clock.rows != sum(walk.spent) or dead:
        raise AssertionError(
            f"{walk.clock.rows} network evaluations, {sum(walk.spent)} on the paths' accounts; cut off and yet "
            f"charged: {dead}"
        )


def in_batches(
    prompts: Sequence[str | Prompt], seeds: Sequence[int], n: int, batch_size: int
) -> Iterator[tuple[list[Prompt], Tensor]]:
    """As many prompts with their seeds (b,) as fit a batch with N candidates each, at least one. Raises
    TastemakerError for N below 1, or another number of seeds."""
    if n < 1 or len(prompts) != len(seeds):
        raise TastemakerError(f"expected n >= 1 and a seed per prompt, got n = {n}, {len(seeds)} seeds")
    wanted, at_once = [Prompt.of(p) for p in prompts], max(1, batch_size // n)
    for i in range(0, len(wanted), at_once):
        yield wanted[i : i + at_once], torch.tensor(list(seeds[i : i + at_once]))


def best_rows(values: Tensor, keep: int) -> Tensor:
    """(B, n) -> (B keep,) int64, rows of the table laid flat: of each prompt the best first, of equals the first; NaN
    comes last."""
    known = torch.where(values.isnan(), -torch.inf, values)
    best = known.sort(dim=1, descending=True, stable=True).indices[:, :keep]
    return (best + torch.arange(len(values))[:, None] * values.shape[1]).flatten()
