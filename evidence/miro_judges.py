"""By what miro.py judges pictures: the four rewards that MIRO is told, and two judgements that no run is told.

`check` is GenEval's rules through the world's detector-b. `raters` is what simulated raters think of a picture: three
parts how much of the prompt a third detector finds true, which nobody is told, one part sharpness and one harmony,
which are told; the shipped preference reward learned from votes of raters with this taste. Letters: B batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from tastemaker.protocols import Reward
from tastemaker.records import Prompt, Provenance
from tastemaker.rewards.harmony import Harmony
from tastemaker.rewards.sharpness import Sharpness
from tastemaker.rewards.table import load_rewards
from tastemaker.world.check import Alignment, WorldCheck
from tastemaker.world.raters import Taste, utility

REWARDS = ("preference", "alignment", "sharpness", "harmony")
RATERS, CHECK = "raters", "check"
JUDGED = (*REWARDS, RATERS, CHECK)  # J columns of scores


class Raters:
    """The utility of a picture to simulated raters (world/raters.py), as a reward."""

    name = RATERS
    differentiable = False
    range = (-math.inf, math.inf)

    def __init__(self) -> None:
        seen = Alignment()
        self.parts = [seen, Sharpness(), Harmony()]
        self.provenance = Provenance("raters", seen.provenance.weight_hash, seen.provenance.preprocessing)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,)."""
        return utility(self.parts, Taste(), images, prompts)


def judges() -> list[Reward]:
    """In the order of JUDGED."""
    return [*load_rewards(REWARDS), Raters(), WorldCheck()]


def column(name: str) -> int:
    return JUDGED.index(name)
