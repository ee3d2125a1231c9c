"""Whether a feature space is held out: a distance measured where a reward was trained proves little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..encoders.protocol import Encoder
from ..errors import TastemakerError
from ..protocols import Reward


def trained_spaces(reward: Any) -> set[str]:
    """The sha256 of every weight file that a reward looks through, those of its parts included."""
    parts = getattr(reward, "rewards", None) or [reward]
    return {h for part in parts for h in part.provenance.weight_hash.split("+") if h}


def require_held_out(encoder: Encoder, rewards: Iterable[Reward]) -> None:
    """Raise TastemakerError where one of the rewards that a run was trained with looks through this very encoder."""
    for reward in rewards:
        if encoder.provenance.weight_hash in trained_spaces(reward) or getattr(reward, "encoder", None) is encoder:
            raise TastemakerError(
                f"the feature space '{encoder.name}' is not held out: the run was trained with '{reward.name}', "
                "which looks through the same weights; measure in another space, or call it the training space"
            )
