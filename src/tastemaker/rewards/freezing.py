"""Which layers of a reward model stay as they were: the first share of each tower, as ImageReward was trained
(Xu et al. 2023, arXiv 2304.05977, section 4.1: 70 %)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from ..encoders.tiny_clip import TinyClipNetwork

Part = nn.Module | nn.Parameter


@dataclass(frozen=True)
class Tower:
    """A stack of blocks with what lies before them (embeddings) and behind them (the last norm)."""

    before: Sequence[Part]
    blocks: Sequence[nn.Module]
    behind: Sequence[Part] = ()


def freeze(towers: Iterable[Tower], share: float) -> None:
    """The first int(share x blocks) blocks of each tower learn nothing more, nor does what lies before them.

    share in [0, 1]: at 0 everything learns, at 1 nothing of the towers.
    """
    for tower in towers:
        first = int(share * len(tower.blocks) + 1e-9)
        _learns(tower.before, share == 0)
        _learns(tower.blocks[:first], False)
        _learns(tower.blocks[first:], True)
        _learns(tower.behind, share < 1)


def freeze_tiny_clip(towers: TinyClipNetwork, share: float) -> None:
    """`freeze` of both towers. The projections to the shared space never learn."""
    towers.requires_grad_(False)
    image, text = towers.image, towers.text
    freeze(
        [
            _tower([image.stem, image.place, image.pool], image.blocks),
            _tower([text.word, text.place, text.pool], text.blocks),
        ],
        share,
    )


def _tower(before: Sequence[Part], blocks: nn.TransformerEncoder) -> Tower:
    assert blocks.norm is not None, "`transformer` ends in a norm"
    return Tower(before, list(blocks.layers), [blocks.norm])


def _learns(parts: Iterable[Part], yes: bool) -> None:
    for part in parts:
        part.requires_grad_(yes)
