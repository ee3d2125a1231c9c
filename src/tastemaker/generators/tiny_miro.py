"""tiny-miro: tiny-flow with a token for each reward, so that one training serves every trade-off between them (MIRO,
Dufour et al. 2025, arXiv 2510.25897). Its bins of scores, with their edges and versions, lie in its file.

Letters: B batch, R rewards, K rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from ..encoders.words import Vocabulary
from ..errors import TastemakerError
from ..protocols import Condition, Plan
from ..weights import fill, load_weights, save_weights, shape_of
from .networks import NetworkConfig
from .paths import x1_to_velocity
from .reward_targets import good_seen, poorest_seen, with_null_condition
from .reward_tokens import RewardedNetwork, rewarded
from .tiny_flow import TinyFlow
from .told import Scale, ToldRewards

KIND = "tiny-miro"
GUIDANCE = 3.0


class TinyMiro(ToldRewards, TinyFlow):
    """TinyFlow whose network reads levels of rewards as well."""

    network: RewardedNetwork  # type: ignore[assignment]

    def __init__(self, network: RewardedNetwork, vocabulary: Vocabulary, scale: Scale, plan: Plan | None = None):
        super().__init__(network, vocabulary, plan)
        self.scale, self.guidance = scale, GUIDANCE
        whole = (~scale.seen.isnan().any(1)).any()  # else the ends of every level
        self.positive = scale.snapped(good_seen(scale.seen)) if whole else torch.ones(len(scale.rewards))
        self.negative = poorest_seen(scale.seen) if whole else torch.zeros(len(scale.rewards))
        self.ask = with_null_condition

    @classmethod
    def begun(cls, flow: TinyFlow, scale: Scale, seed: int = 0) -> TinyMiro:
        """From a tiny-flow, whose weights are copied; the velocity is its own until something is trained."""
        words = flow.vocabulary
        made = cls(
            rewarded(flow.network, len(words), words.length, len(scale.rewards), seed), words, scale, flow.plan
        )
        made.decoder.load_state_dict(flow.decoder.state_dict())
        for ours, theirs in zip(made.decoder.parameters(), flow.decoder.parameters()):
            ours.requires_grad_(theirs.requires_grad)
        made.parts.to(flow.device)
        return made

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        """Raises TastemakerError for targets outside [0, 1] or of other rewards than the model's."""
        return super().encode_text(condition) | {"levels": self.levels_of(condition)}

    def caption_condition(
        self, captions: Sequence, drop: Tensor | None = None, levels: Tensor | None = None
    ) -> Condition:
        """The condition of training captions with their levels (B, R), as they are; None: all missing."""
        condition = super().caption_condition(captions, drop)
        levels = self.no_targets(len(captions)) if levels is None else levels
        return replace(condition, targets=levels, cache={**condition.cache, "levels": levels.to(self.device)})

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        x1 = self.network(x, t, condition.cache["words"], condition.cache["levels"]).float()
        return x1_to_velocity(x1, x, t, floor=0.05)

    def write(self, path: Path, half: bool = False) -> str:
        description = {
            "kind": KIND,
            "network": asdict(self.network.config),
            "words": self.vocabulary.words,
            "length": self.vocabulary.length,
            "recipe": self.recipe,
            "rewards": self.rewards,
            "bins": self.scale.bins,
            "described": self.scale.described,
            "guidance": self.guidance,
        }
        seen = self.scale.seen
        rows = torch.where(seen.isnan(), -1, (seen.nan_to_num() * (self.scale.bins - 1)).round()).to(torch.int16)
        return save_weights(path, {**self.parts.state_dict(), "seen": rows}, description, half)


def load_tiny_miro(path: str | Path) -> TinyMiro:
    """From a file, or a folder with `model.safetensors`. Raises TastemakerError for one of another kind."""
    path = Path(path)
    tensors, said = load_weights(path / "model.safetensors" if path.is_dir() else path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    needs = ("words", "length", "rewards", "bins", "described", "guidance")
    config = shape_of(NetworkConfig, said, str(path), needs)
    rewards, vocabulary = tuple(said["rewards"]), Vocabulary(said["words"], said["length"])
    rows = tensors.pop("seen", torch.empty(0, len(rewards), dtype=torch.int16)).float()  # (K, R)
    seen = torch.where(rows < 0, float("nan"), rows / (said["bins"] - 1))
    network = RewardedNetwork(config, len(vocabulary), vocabulary.length, len(rewards))
    generator = TinyMiro(network, vocabulary, Scale(rewards, said["bins"], tuple(said["described"]), seen))
    fill(generator.parts, tensors, str(path))
    generator.recipe, generator.guidance = said.get("recipe") or {}, said["guidance"]
    generator.decoder.requires_grad_(False)
    generator.parts.eval()
    return generator
