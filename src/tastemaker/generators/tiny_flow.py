"""tiny-flow: the embedded text-to-image generator, a pixel-space flow transformer that predicts the clean picture.

The recipe is JiT's (Li & He 2025, arXiv 2511.13720): x-prediction with the velocity loss, t logit-normal with mean
-0.6 (towards noise, in our direction of time), the divisor 1 - t kept at 0.05 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..encoders.words import Vocabulary
from ..errors import TastemakerError
from ..protocols import Condition, Plan
from ..weights import fill, load_weights, save_weights, shape_of
from .flow import FlowGenerator, PixelCodec, uniform_times
from .networks import NetworkConfig, TinyFlowNetwork
from .paths import x1_to_velocity
from .samplers import euler

KIND = "tiny-flow"


class TinyFlow(FlowGenerator):
    """A generator over `TinyFlowNetwork` and a vocabulary of its own."""

    def __init__(self, network: TinyFlowNetwork, vocabulary: Vocabulary, plan: Plan | None = None, recipe=None):
        size = network.config.size
        plan = plan or Plan(euler, uniform_times(12))
        super().__init__(network, (3, size, size), PixelCodec(), plan, time_mean=-0.6, time_std=1.0)
        self.vocabulary, self.recipe = vocabulary, recipe or {}

    @classmethod
    def new(cls, config: NetworkConfig, vocabulary: Vocabulary, seed: int = 0) -> TinyFlow:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(TinyFlowNetwork(config, len(vocabulary), vocabulary.length), vocabulary)

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        return {"words": self.vocabulary.encode([p.text for p in condition.prompts]).to(self.device)}

    def caption_condition(self, captions: Sequence, drop: Tensor | None = None) -> Condition:
        """The condition of training captions; rows where `drop` (B,) is true get the null condition."""
        words = self.vocabulary.encode_known([p.text for p in captions])
        words = words if drop is None else words * ~drop[:, None]
        return Condition(tuple(captions), torch.ones(len(words)), cache={"words": words.to(self.device)})

    def predict_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        x1 = self.network(x, t, condition.cache["words"]).float()
        return x1_to_velocity(x1, x, t, floor=0.05)

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`."""
        self.write(Path(folder) / "model.safetensors")

    def write(self, path: Path, half: bool = False) -> str:
        description = {
            "kind": KIND,
            "network": asdict(self.network.config),
            "words": self.vocabulary.words,
            "length": self.vocabulary.length,
            "recipe": self.recipe,
        }
        return save_weights(path, self.network.state_dict(), description, half)


def load_tiny_flow(path: str | Path) -> TinyFlow:
    """From a file, or a folder with `model.safetensors`."""
    path = Path(path)
    tensors, said = load_weights(path / "model.safetensors" if path.is_dir() else path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    config = shape_of(NetworkConfig, said, str(path), ("words", "length"))
    vocabulary = Vocabulary(said["words"], said["length"])
    network = TinyFlowNetwork(config, len(vocabulary), vocabulary.length)
    fill(network, tensors, str(path))
    return TinyFlow(network.eval(), vocabulary, recipe=said.get("recipe"))
