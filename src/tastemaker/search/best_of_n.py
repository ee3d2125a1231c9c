"""Best-of-N: N pictures for each prompt, the verifier's favourite kept (Nakano et al. 2021, arXiv 2112.09332).

Candidate 0 of a seed is the picture that plain sampling gives, the others are branches of the same seed; N = 1 is
plain sampling. A candidate whose score is NaN cannot win.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..protocols import Condition, Generator, Plan, Reward
from ..records import Ledger, Prompt
from ..sampling import finish, score_checked
from .ledger import metered, timed


@dataclass(frozen=True)
class Config:
    """Best-of-N."""

    n: int = 8
    """candidates for each prompt and seed"""
    batch_size: int = 64
    """pictures at once"""


@dataclass(frozen=True)
class Selected:
    """What the search kept of one batch of prompts."""

    images: Tensor  # (B, 3, H, W); of a prompt without any score, candidate 0
    scores: Tensor  # (B, N), NaN where the verifier gave none
    chosen: Tensor  # (B,) int64; -1 where every score is NaN: nothing was selected


def choose(scores: Tensor) -> Tensor:
    """(B, N) -> (B,): the best candidate, the first of equals; -1 where all are NaN."""
    best = torch.where(scores.isnan(), -torch.inf, scores).argmax(1)
    return torch.where(scores.isnan().all(1), -1, best)


def candidates(generator: Generator, prompts: Sequence[Prompt], seeds: Tensor, n: int, plan: Plan | None, guidance):
    """The N starts of each prompt, side by side: candidate 0 is the plain one."""
    state = generator.start(Condition.of(prompts, guidance), seeds, plan).fork(n)
    return generator.start(state.condition, state.seeds, plan, state.branch)


def search(
    generator: Generator,
    verifier: Reward,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    config: Config,
    ledger: Ledger,
    plan: Plan | None = None,
    guidance: float | None = None,
) -> Iterator[Selected]:
    """A batch of prompts a turn; the ledger grows as it goes. seeds: one per prompt."""
    if config.n < 1 or len(prompts) != len(seeds):
        raise TastemakerError(f"expected n >= 1 and a seed per prompt, got n = {config.n}, {len(seeds)} seeds")
    guidance = getattr(generator, "guidance", 1.0) if guidance is None else guidance
    wanted = [Prompt.of(p) for p in prompts]
    at_once = max(1, config.batch_size // config.n)
    with metered(generator.network, ledger):
        for i in range(0, len(wanted), at_once):
            own, numbers = wanted[i : i + at_once], torch.tensor(list(seeds[i : i + at_once]))
            with timed(ledger, "generator"):
                state = finish(generator, candidates(generator, own, numbers, config.n, plan, guidance))
            with timed(ledger, "decoder"):
                images = generator.preview(state).clamp(0, 1).float()
            with timed(ledger, "verifier"):
                repeated = [p for p in own for _ in range(config.n)]
                scores = score_checked(verifier, images, repeated).cpu().reshape(len(own), config.n)
            ledger.decoder_calls += len(images)
            ledger.verifier_calls += len(images)
            chosen = choose(scores)
            rows = torch.arange(len(own)) * config.n + chosen.clamp_min(0)
            yield Selected(images[rows.to(images.device)].cpu(), scores, chosen)
