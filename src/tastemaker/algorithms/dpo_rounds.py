"""What a round of iterative DPO trains on: pairs of the generator's own pictures, and the reference that follows it.

The best and the worst of K pictures of a prompt, by a reward, are a pair, as may be those next to them; a prompt
whose pictures are all alike in the reward is dropped (Guo et al. 2025, arXiv 2501.13926, section 3.3). Letters: P
prompts of a round, K pictures of each, n pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..picture_bytes import from_bytes
from ..protocols import Reward
from ..randomness import mix
from ..ranks import local
from ..records import Prompt
from .kept import Kept
from .optimise import bare
from .rollout import distinct, draw_scored

if TYPE_CHECKING:
    from .dpo import Config


def extremes(scores: Tensor, least: float, count: int = 1) -> Tensor:
    """(P, K) -> (p, 3) int64: prompt, better and worse picture. The best of a prompt goes with its worst, the second
    best with the second worst, and so on up to `count` pairs, as long as the two differ by more than `least`; of
    equals the first. NaN is in no pair; a prompt with fewer than two scores is dropped."""
    best = torch.where(scores.isnan(), -torch.inf, scores).argsort(dim=1, descending=True, stable=True)
    worst = torch.where(scores.isnan(), torch.inf, scores).argsort(dim=1, stable=True)
    best, worst = best[:, :count], worst[:, :count]  # (P, count)
    apart = scores.gather(1, best) - scores.gather(1, worst)  # NaN where one has none
    rows, ranks = (apart > least).nonzero(as_tuple=True)
    return torch.stack([rows, best[rows, ranks], worst[rows, ranks]], 1)


def drawn_pairs(
    generator: Any, reward: Reward, prompts: Sequence[Prompt], config: Config, number: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Pictures (n, 2, 3, H, W) uint8 of a round and the positions (n,) of their prompts, with what was found. Raises
    TastemakerError where every prompt is dropped."""
    places = distinct(range(len(prompts)), config.drawn_prompts, config.seed, number)  # type: ignore[arg-type]
    images, positions, means, at_once = [], [], [], max(1, 64 // config.per_prompt)
    for i in range(0, len(places), at_once):
        asked = [prompts[k] for k in places[i : i + at_once]]  # type: ignore[call-overload]
        drawn = draw_scored(generator, reward, asked, config.per_prompt, mix(config.seed, 3, number, i))
        scores = drawn.scores.reshape(len(asked), config.per_prompt)
        kept = extremes(scores, config.least_difference, config.pairs_per_prompt)
        images.append(drawn.images.unflatten(0, scores.shape)[kept[:, :1], kept[:, 1:]])
        positions += [places[i + row] for row in kept[:, 0].tolist()]
        means.append(scores.flatten())
    if not positions:
        raise TastemakerError(
            f"round {number + 1}: '{reward.name}' tells no two pictures of a prompt apart, so there is no pair; draw "
            "more with per_prompt, or take a reward that varies"
        )
    found = {"pairs": float(len(positions)), "dropped_prompts": float(len(places) - len(set(positions)))}
    found["drawn_reward"] = float(torch.cat(means).nanmean())
    return {"images": torch.cat(images), "positions": torch.tensor(positions)}, found


@dataclass(frozen=True)
class DrawnPairs:
    """The pairs of a round as a map-style data set."""

    images: Tensor  # (n, 2, 3, H, W) uint8
    prompts: Sequence[Prompt]  # n

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Prompt]:
        return from_bytes(self.images[index]), self.prompts[index]


def follow_policy(base: Any, generator: Any) -> dict[str, Tensor]:
    """Put the policy's weights into the reference; returns them by name, for the checkpoints. A reference that is the
    generator with its adapter switched off has no weights of its own, and stays where it is."""
    if base.network is generator.network:
        return {}
    ours = dict(bare(generator.network).named_parameters())
    with torch.no_grad():
        for name, weight in bare(base.network).named_parameters():
            local(weight).copy_(local(ours[name].detach()))
    return {f"reference/{n}": local(w.detach()).clone() for n, w in bare(base.network).named_parameters()}


def restore_reference(base: Any, generator: Any, kept: Kept) -> None:
    """Put back what `follow_policy` gave."""
    with torch.no_grad():
        for name, weight in bare(base.network).named_parameters():
            if base.network is not generator.network and f"reference/{name}" in kept.tensors:
                local(weight).copy_(kept.tensors[f"reference/{name}"])
