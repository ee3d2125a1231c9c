"""The pretraining loss on captioned pictures beside a reward: what keeps a tuned generator's pictures from falling
apart (L_pre of ReFL, Xu et al. 2023, arXiv 2304.05977, Eq. 5; Lee et al. 2023, arXiv 2302.12192).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..protocols import Condition
from ..records import Prompt
from .pretrain import Captioned, flow_matching

Data = Iterator[tuple[Tensor, list[Prompt]]]


def captioned_data(batches: Captioned | None, weight: float, step: int, workers: int) -> Data | None:
    """The batches from `step` on; None where there are none or they count for nothing."""
    return batches.from_step(step, workers) if batches is not None and weight else None


def captioned_loss(generator: Any, images: Tensor, captions: list[Prompt], seeds: Tensor) -> Tensor:
    """The generator's own loss on pictures (B, 3, H, W) in [0, 1] with their captions, (B,)."""
    condition = getattr(generator, "caption_condition", Condition.of)(captions)
    device = next(generator.network.parameters()).device
    return flow_matching(generator, images.to(device), condition, seeds[: len(images)])


def anchored(
    loss: Tensor, generator: Any, data: Data | None, weight: float, seeds: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """loss + weight L_pre, both scalars, and the figure `pretraining_loss`. seeds: at least one per picture."""
    if data is None:
        return loss, {}
    images, captions = next(data)
    pretraining = captioned_loss(generator, images, captions, seeds).mean()
    return loss + weight * pretraining, {"pretraining_loss": float(pretraining.detach())}
