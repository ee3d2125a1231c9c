"""tiny-masked: the embedded masked-token generator, in the manner of Show-o (Xie et al. 2024, arXiv 2408.12528).

A tokenizer (vq.py) makes 64 tokens of a picture of 64 x 64; a transformer (token_network.py) fills in those that are
masked. Both travel in one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..encoders.words import Vocabulary
from ..errors import TastemakerError
from ..protocols import Condition, Plan
from ..weights import fill, load_weights, save_weights, shape_of
from .masked import MaskedGenerator
from .token_network import TokenNetwork, TokenNetworkConfig
from .unmasking import confidence, cosine_times
from .vq import TokenCodec, Tokenizer, TokenizerConfig

KIND = "tiny-masked"
STEPS, GUIDANCE = 12, 2.5  # of sampling


class TinyMasked(MaskedGenerator):
    """A generator over `TokenNetwork`, a frozen tokenizer and a vocabulary of its own."""

    network: TokenNetwork

    def __init__(self, network: TokenNetwork, tokenizer: Tokenizer, vocabulary: Vocabulary, recipe=None):
        codec = TokenCodec(tokenizer.requires_grad_(False).eval())
        super().__init__(network, network.tokens, codec, self.native_plan(STEPS), GUIDANCE)
        self.tokenizer, self.vocabulary, self.recipe = tokenizer, vocabulary, recipe or {}
        self.picture_size = tokenizer.config.size

    @staticmethod
    def native_plan(steps: int) -> Plan:
        """By confidence, few tokens at first."""
        return Plan(confidence, cosine_times(steps))

    @classmethod
    def new(
        cls, config: TokenNetworkConfig, tokenizer: Tokenizer, vocabulary: Vocabulary, seed: int = 0
    ) -> TinyMasked:
        """Fresh weights of the network, which depend on the seed alone. Raises TastemakerError where the network and
        the tokenizer are of different tokens."""
        theirs = (tokenizer.config.side, tokenizer.config.bits)
        if (config.side, config.bits) != theirs:
            raise TastemakerError(
                f"expected a network for {theirs[0]} x {theirs[0]} tokens of {theirs[1]} bits, which the tokenizer "
                f"makes, got {config.side} x {config.side} of {config.bits}"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(TokenNetwork(config, len(vocabulary), vocabulary.length), tokenizer, vocabulary)

    @property
    def parts(self) -> nn.ModuleDict:
        """All that draws."""
        return nn.ModuleDict({"network": self.network, "tokenizer": self.tokenizer})

    @property
    def hidden(self) -> list[str]:
        """Names in `network` of the matrices between the first and the last layer, for Muon."""
        inside = ("enter", "leave", "blocks", "caption", "modulate")
        names = (name for name, p in self.network.named_parameters() if p.ndim > 1 and not name.endswith("table"))
        return [name for name in names if name.split(".")[0] in inside]

    def encode_text(self, condition: Condition) -> dict[str, Tensor]:
        return {"words": self.vocabulary.encode([p.text for p in condition.prompts]).to(self.device)}

    def caption_condition(self, captions: Sequence, drop: Tensor | None = None) -> Condition:
        """The condition of training captions; rows where `drop` (B,) is true get the null condition."""
        words = self.vocabulary.encode_known([p.text for p in captions])
        words = words if drop is None else words * ~drop[:, None]
        return Condition(tuple(captions), torch.ones(len(words)), cache={"words": words.to(self.device)})

    def predict_logits(self, tokens: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.network(tokens, condition.cache["words"])

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`."""
        self.write(Path(folder) / "model.safetensors")

    def write(self, path: Path, half: bool = False) -> str:
        """One file with the network, the tokenizer and the words; returns its sha256."""
        description = {
            "kind": KIND,
            "network": asdict(self.network.config),
            "tokenizer": asdict(self.tokenizer.config),
            "words": self.vocabulary.words,
            "length": self.vocabulary.length,
            "recipe": self.recipe,
        }
        return save_weights(path, self.parts.state_dict(), description, half)


def load_tiny_masked(path: str | Path) -> TinyMasked:
    """From a file, or a folder with `model.safetensors`. Raises TastemakerError for another kind or version."""
    path = Path(path)
    tensors, said = load_weights(path / "model.safetensors" if path.is_dir() else path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    config = shape_of(TokenNetworkConfig, said, str(path), ("words", "length", "tokenizer"))
    tokenizer = Tokenizer(shape_of(TokenizerConfig, {"network": said["tokenizer"]}, str(path)))
    vocabulary = Vocabulary(said["words"], said["length"])
    network = TokenNetwork(config, len(vocabulary), vocabulary.length)
    generator = TinyMasked(network, tokenizer, vocabulary, said.get("recipe"))
    fill(generator.parts, tensors, str(path))
    generator.parts.eval()
    return generator
