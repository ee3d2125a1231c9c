"""Any reward as a verifier of previews, without training: a zero-shot ORM that PARM can use.

Clarity is a share of the steps, as `search calibrate` measures it; potential is the preview's score against a middle,
in the unit of the rewards' spread: sigmoid((score - middle) / spread). Tiny-clip's `alignment` is the one for the
embedded world.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import expect
from ..protocols import Reward
from ..records import Prompt


class ZeroShot:
    """clear_from: share of the steps from which on previews count as clear, in [0, 1]; middle: the score at which a
    preview is as likely to lead to what was asked as not; spread: the score's unit, above 0."""

    differentiable = False

    def __init__(self, reward: Reward, clear_from: float = 0.5, middle: float = 0.0, spread: float = 1.0):
        expect(0 <= clear_from <= 1 and spread > 0, "clear_from in [0, 1] and a spread above 0", (clear_from, spread))
        self.reward, self.clear_from, self.middle, self.spread = reward, clear_from, middle, spread
        self.name, self.range, self.provenance = reward.name, reward.range, reward.provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """The reward's own, (B,)."""
        return self.reward.score(images, prompts)

    def clear(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        """1 from `clear_from` on and 0 before, (B,)."""
        return (progress >= self.clear_from - 1e-6).float()

    def potential(self, images: Tensor, prompts: Sequence[Prompt], progress: Tensor) -> Tensor:
        """(B,) in [0, 1]."""
        with torch.no_grad():
            return ((self.reward.score(images, prompts).float() - self.middle) / self.spread).sigmoid()
