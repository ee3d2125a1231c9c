"""tiny-flow: the embedded text-to-image generator, a pixel-space flow transformer that predicts the clean picture.

The flow draws at half the side of the picture, where it learns from four times as many pictures a second; a small
deterministic decoder, trained beside it, draws the details. Scale 1 is a flow at the full side.

The recipe is JiT's (Li & He 2025, arXiv 2511.13720): x-prediction with the velocity loss, t logit-normal with mean
-0.6 (towards noise, in our direction of time), the divisor 1 - t kept at 0.05 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.words import Vocabulary
from ..errors import TastemakerError
from ..protocols import Condition, Draw, Plan
from ..weights import fill, load_weights, save_weights, shape_of
from .flow import FlowGenerator, PixelCodec, shifted_times
from .networks import Enlarger, NetworkConfig, TinyFlowNetwork
from .paths import x1_to_velocity
from .samplers import euler

KIND = "tiny-flow"
STEPS, SHIFT, GUIDANCE = 8, 3.0, 2.0  # of sampling: what drew most prompts right, see docs/world.md


class HalfCodec:
    """Averages blocks of pixels on the way in, enlarges with a network on the way out; [-1, 1] inside."""

    def __init__(self, decoder: Enlarger):
        self.decoder = decoder

    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.decoder.scale) * 2 - 1

    def decode(self, x1: Tensor) -> Tensor:
        return self.decoder(x1) / 2 + 0.5


class TinyFlow(FlowGenerator):
    """A generator over `TinyFlowNetwork`, its decoder and a vocabulary of its own."""

    network: TinyFlowNetwork

    def __init__(self, network: TinyFlowNetwork, vocabulary: Vocabulary, plan: Plan | None = None, recipe=None):
        config = network.config
        self.decoder = Enlarger(config.decoder, config.scale) if config.scale > 1 else nn.Identity()
        codec = HalfCodec(self.decoder) if isinstance(self.decoder, Enlarger) else PixelCodec()
        plan, side = plan or self.native_plan(STEPS), config.size
        super().__init__(network, (3, side, side), codec, plan, GUIDANCE, time_mean=-0.6, time_std=1.0)
        self.vocabulary, self.recipe = vocabulary, recipe or {}
        self.picture_size = config.size * config.scale

    @staticmethod
    def native_plan(steps: int) -> Plan:
        """Euler, with shorter steps where the picture is decided."""
        return Plan(euler, shifted_times(steps, SHIFT))

    @classmethod
    def new(cls, config: NetworkConfig, vocabulary: Vocabulary, seed: int = 0) -> TinyFlow:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(TinyFlowNetwork(config, len(vocabulary), vocabulary.length), vocabulary)

    @property
    def parts(self) -> nn.ModuleDict:
        """Everything that pretraining trains; ReFL and its kind train `network` alone."""
        return nn.ModuleDict({"network": self.network, "decoder": self.decoder})

    @property
    def hidden(self) -> list[str]:
        """Names in `parts` of the matrices between the first and the last layer, for Muon."""
        inside = ("down", "patchify", "blocks", "unpatchify", "up", "caption", "modulate")
        names = (name for name, p in self.network.named_parameters() if p.ndim > 1 and not name.endswith("table"))
        return [f"network.{name}" for name in names if name.split(".")[0] in inside]

    def codec_loss(self, images: Tensor, draw: Draw) -> Tensor:
        """How far the decoder is from the picture, mean absolute difference, (B,). The small one is roughened a
        little first, since the flow's own drawings are never quite clean."""
        if not isinstance(self.decoder, Enlarger):
            return images.new_zeros(len(images))
        small = self.codec.encode(images, draw.time) + 0.05 * draw.time.reshape(-1, 1, 1, 1) * draw.noise
        return (self.codec.decode(small) - images).abs().flatten(1).mean(1)

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
        return save_weights(path, self.parts.state_dict(), description, half)


def load_tiny_flow(path: str | Path) -> TinyFlow:
    """From a file, or a folder with `model.safetensors`."""
    path = Path(path)
    tensors, said = load_weights(path / "model.safetensors" if path.is_dir() else path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    config = shape_of(NetworkConfig, said, str(path), ("words", "length"))
    vocabulary = Vocabulary(said["words"], said["length"])
    network = TinyFlowNetwork(config, len(vocabulary), vocabulary.length)
    generator = TinyFlow(network, vocabulary, recipe=said.get("recipe"))
    fill(generator.parts, tensors, str(path))
    generator.decoder.requires_grad_(False)
    generator.parts.eval()
    return generator
