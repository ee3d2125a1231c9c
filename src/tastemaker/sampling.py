"""Pictures and scores, the short way: drain a trajectory, decode, judge."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import TastemakerError
from .protocols import Condition, Generator, Plan, Reward, State
from .records import Prompt


def finish(generator: Generator, state: State) -> State:
    """Advance until every particle has arrived."""
    while not state.done.all():
        state = generator.advance(state)
    return state


def sample_batches(
    generator: Generator,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    plan: Plan | None = None,
    guidance: float | None = None,
    batch: int = 64,
) -> Iterator[Tensor]:
    """Pictures (b, 3, H, W) in [0, 1], a batch at a time, in the order of the prompts. seeds: one per prompt."""
    if len(prompts) != len(seeds):
        raise TastemakerError(f"expected one seed per prompt, got {len(seeds)} seeds and {len(prompts)} prompts")
    guidance = getattr(generator, "guidance", 1.0) if guidance is None else guidance
    for i in range(0, len(prompts), batch):
        condition = Condition.of(prompts[i : i + batch], guidance)
        state = generator.start(condition, torch.tensor(list(seeds[i : i + batch])), plan)
        yield generator.preview(finish(generator, state)).clamp(0, 1).float()


def sample(
    generator: Generator,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    plan: Plan | None = None,
    guidance: float | None = None,
    batch: int = 64,
) -> Tensor:
    """(B, 3, H, W) float32 in [0, 1]; image k depends on prompt k and seed k alone.

    guidance None: the generator's own default. Raises TastemakerError where the numbers of prompts and seeds differ,
    or are 0.
    """
    if not len(prompts):
        raise TastemakerError("no prompts to draw; expected at least one, with its seed")
    return torch.cat([images.cpu() for images in sample_batches(generator, prompts, seeds, plan, guidance, batch)])


def score(rewards: Sequence[Reward], images: Tensor, prompts: Sequence[str | Prompt], batch: int = 64) -> Tensor:
    """(B, R) float32, a column per reward. A reward that fails is named; one that gives NaN for a picture is
    reported and the NaN stays, so that whoever selects or averages has to leave the picture out."""
    wanted = [Prompt.of(p) for p in prompts]
    if len(wanted) != len(images):
        raise TastemakerError(f"expected one prompt per picture, got {len(wanted)} prompts, {len(images)} pictures")
    rows = [score_batch(rewards, images[i : i + batch], wanted[i : i + batch]) for i in range(0, len(images), batch)]
    values = torch.cat(rows) if rows else torch.empty(0, len(rewards))
    for reward, missing in zip(rewards, values.isnan().sum(0).tolist()):
        if missing:
            warnings.warn(
                f"reward '{reward.name}' gave no score for {missing} of {len(images)} pictures", stacklevel=2
            )
    return values


def score_batch(rewards: Sequence[Reward], images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """(b, R) float32 on the host, no gradient; rewards of one view (see rewards/of_pixels.py) share its pixels."""
    shared: dict[object, Tensor] = {}
    columns = [score_checked(reward, images, prompts, shared=shared).cpu() for reward in rewards]
    return torch.stack(columns, 1) if columns else torch.empty(len(images), 0)


def score_checked(
    reward: Reward,
    images: Tensor,
    prompts: Sequence[Prompt],
    grad: bool = False,
    shared: dict[object, Tensor] | None = None,
) -> Tensor:
    """One reward's (B,) float32, with its mistakes named. grad: keep the graph back to the pictures. shared: pixels
    by view, of these same pictures; those of the reward's view are taken from it or put into it."""
    try:
        with torch.set_grad_enabled(grad):
            values = torch.as_tensor(_judged(reward, images, prompts, shared))
    except TastemakerError:
        raise
    except Exception as error:
        raise TastemakerError(f"reward '{reward.name}' raised {type(error).__name__}: {error}") from error
    if values.shape != (len(images),):
        raise TastemakerError(
            f"reward '{reward.name}' must give one number per picture, shape ({len(images)},); "
            f"it gave shape {tuple(values.shape)}"
        )
    if values.isinf().any():
        values = torch.where(values.isinf(), float("nan"), values)
    return values.float()


def _judged(reward: Any, images: Tensor, prompts: Sequence[Prompt], shared: dict[object, Tensor] | None) -> Tensor:
    if shared is None or not hasattr(reward, "score_pixels"):
        return reward.score(images, prompts)
    if reward.view not in shared:
        shared[reward.view] = reward.pixels(images)
    return reward.score_pixels(shared[reward.view], prompts)
