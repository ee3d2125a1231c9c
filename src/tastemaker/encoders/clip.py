"""CLIP (Radford et al. 2021, arXiv 2103.00020) in open_clip's key layout, and from folders that transformers saves.

Picture and words become vectors of length 1 in one space. Letters: B batch, N image tokens, L text tokens, V and D
widths of the two towers, F width of the shared space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError
from ..protocols import Prompt
from ..records import Provenance
from ..weights import device_of, file_hash
from .blip import count, join, split
from .clip_bpe import LENGTH, clean_transformers, load_byte_pairs
from .official import assemble, read_folder, read_json, shapes_of
from .pixels import Crop, View, normalise

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@dataclass(frozen=True)
class TowerConfig:
    width: int
    depth: int
    heads: int
    hidden: int  # of the perceptrons
    activation: str = "gelu"


@dataclass(frozen=True)
class ClipConfig:
    """Sizes; the tensors of a checkpoint tell all but the heads and the activation."""

    image: TowerConfig
    text: TowerConfig
    size: int  # side of the picture, pixels
    patch: int
    shared: int  # F
    words: int
    length: int = LENGTH
    end: int | None = None  # the id at whose first place a text is read; None: at its largest id


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        parts = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        q, k, v = (split(part, self.heads) for part in parts)
        return self.out_proj(join(F.scaled_dot_product_attention(q, k, v, is_causal=causal)))


class Block(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        width = config.width
        self.activate = ACTIVATIONS[config.activation]
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, config.heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, config.hidden), "c_proj": nn.Linear(config.hidden, width)})

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal)
        return x + self.mlp["c_proj"](self.activate(self.mlp["c_fc"](self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        for block in self.resblocks:
            x = block(x, causal)
        return x


class ImageTower(nn.Module):
    """Normalised pixels (B, 3, S, S) -> (B, F)."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        width, patches = config.image.width, (config.size // config.patch) ** 2
        self.conv1 = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.02)
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, width) * 0.02)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(config.image)
        self.proj = nn.Parameter(torch.randn(width, config.shared) * width**-0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)  # (B, N, V)
        x = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class ClipNetwork(nn.Module):
    """Both towers; `image` and `text` give vectors before they are brought to length 1."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config, width = config, config.text.width
        self.visual = ImageTower(config)
        self.token_embedding = nn.Embedding(config.words, width)
        self.positional_embedding = nn.Parameter(torch.randn(config.length, width) * 0.01)
        self.transformer, self.ln_final = Transformer(config.text), nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, config.shared) * width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def image(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> (B, F)."""
        return self.visual(pixels.to(self.visual.proj.dtype))

    def text(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, F), read where the text ends."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        x = self.ln_final(self.transformer(x, causal=True))
        end = self.config.end
        places = (ids if end is None else (ids == end).int()).argmax(1)  # the first, of several
        return x[torch.arange(len(x), device=x.device), places] @ self.text_projection

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(pixels), self.text(ids)


class Tokens(Protocol):
    """Texts into numbers (B, length); `clip_bpe.BytePairs` is one."""

    def encode(self, texts: Sequence[str], length: int) -> Tensor: ...


class Clip:
    """Pictures and prompts into one space. Also an `Encoder`: `features` are the image vectors before normalisation.

    tokens: None where only pictures are looked at.
    """

    name = "clip"

    def __init__(
        self,
        network: ClipNetwork,
        tokens: Tokens | None = None,
        view: View | None = None,
        provenance: Provenance | None = None,
    ):
        self.network, self.tokens = network, tokens
        self.view = view or Crop(network.config.size)
        self.dim = network.config.shared
        self.provenance = provenance or Provenance("clip", preprocessing=str(self.view))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, F) float32."""
        return self.of_pixels(self.view(images.to(device_of(self.network))))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) as the view gives them -> (B, F) float32."""
        with torch.autocast(pixels.device.type, enabled=False):
            return at_least_float32(self.network.image(normalise(pixels.to(device_of(self.network)))))

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """(B, F) float32, of length 1; each different text is read once."""
        if self.tokens is None:
            raise TastemakerError("this CLIP was loaded without its tokenizer, so it reads no prompts")
        different = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        ids = self.tokens.encode(list(different), self.network.config.length).to(device_of(self.network))
        with torch.autocast(ids.device.type, enabled=False):
            vectors = F.normalize(at_least_float32(self.network.text(ids)), dim=-1)
        return vectors[torch.tensor([different[text] for text in texts], device=ids.device)]

    def cosines(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,) of pictures as the view gives them, each with its own prompt."""
        return (F.normalize(self.of_pixels(pixels), dim=-1) * self.text_vectors([p.text for p in prompts])).sum(-1)


def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def network_of(tensors: Mapping[str, Tensor], config: ClipConfig, origin: str) -> ClipNetwork:
    """Strict; the buffer `attn_mask` of older files follows from the sizes and is passed over."""
    kept = {k: v for k, v in tensors.items() if k != "attn_mask"}
    return assemble(lambda: ClipNetwork(config), kept, origin)


def config_of(
    tensors: Mapping[str, Tensor],
    origin: str,
    heads: tuple[int, int],
    activations: tuple[str, str] = ("gelu", "gelu"),
    end: int | None = None,
) -> ClipConfig:
    """Sizes from tensors in open_clip's layout. heads, activations: of picture and text, which no tensor tells.

    Raises TastemakerError, with the file's first keys, where one is missing from which a size is read."""
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "token_embedding.weight",
              "positional_embedding", "visual.transformer.resblocks.0.mlp.c_fc.weight",
              "transformer.resblocks.0.mlp.c_fc.weight")  # fmt: skip
    conv, places, shared, words, length, *_ = shapes_of(tensors, needed, origin, "CLIP")
    strange = [a for a in activations if a not in ACTIVATIONS]
    if strange:
        raise TastemakerError(f"{origin} asks for the activation '{strange[0]}'; known: {', '.join(ACTIVATIONS)}")
    return ClipConfig(
        _tower(tensors, "visual.", conv[0], heads[0], activations[0]),
        _tower(tensors, "", words[1], heads[1], activations[1]),
        size=conv[-1] * math.isqrt(places[0] - 1),
        patch=conv[-1],
        shared=shared[1],
        words=words[0],
        length=length[0],
        end=end,
    )


def _tower(tensors: Mapping[str, Tensor], prefix: str, width: int, heads: int, activation: str) -> TowerConfig:
    blocks = prefix + "transformer.resblocks."
    depth = count(tensors, re.escape(blocks) + r"(\d+)\.")
    return TowerConfig(width, depth, heads, tensors[blocks + "0.mlp.c_fc.weight"].shape[0], activation)


def load_clip_folder(
    folder: str | Path,
    view: Callable[[int], View] = Crop,
    tokenizer: str | Path | Tokens | None = None,
    words: bool = True,
) -> Clip:
    """A CLIPModel folder of transformers: config.json, weights, and unless `words` is False a tokenizer.

    view: how it looks at pictures, made from their side in pixels. tokenizer: its file or folder, or one that is
    loaded; None: in this folder, or in its folder `tokenizer`.

    Raises TastemakerError where a part is missing or a key does not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TastemakerError(
            f"expected a CLIP model folder (config.json, model.safetensors), but there is no {folder}"
        )
    said = read_json(folder / "config.json")
    tensors, file = read_folder(folder)
    translated = from_transformers(tensors, str(file))
    image, text = (_part(said, part) for part in ("vision_config", "text_config"))
    heads = image.get("num_attention_heads", 12), text.get("num_attention_heads", 8)
    activations = image.get("hidden_act", "quick_gelu"), text.get("hidden_act", "quick_gelu")
    end = text.get("eos_token_id", 49407)  # 2 was written by mistake into the first released folders
    config = config_of(translated, str(file), heads, activations, None if end == 2 else end)
    seen = view(config.size)
    tokens = tokens_of(tokenizer or folder, clean_transformers) if words else None
    made = Provenance(f"clip:{folder.name}", file_hash(file), str(seen))
    return Clip(network_of(translated, config, str(file)), tokens, seen, made)


def tokens_of(tokenizer: str | Path | Tokens, clean: Callable[[str], str]) -> Tokens:
    """Loaded, where it is a path."""
    return load_byte_pairs(tokenizer, clean) if isinstance(tokenizer, (str, Path)) else tokenizer


def _part(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A tower's configuration; the first released folders keep a second one beside it, which wins."""
    return {**(said.get(name) or {}), **(said.get(f"{name}_dict") or {})}


RENAMED = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)
TURNED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}


def from_transformers(tensors: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """CLIPModel's keys to open_clip's: names changed, projections turned, query, key and value joined.

    Raises TastemakerError where one of the three is missing."""
    out = {new: tensors[old].T.contiguous() for old, new in TURNED.items() if old in tensors}
    for key, tensor in tensors.items():
        if key not in TURNED and not key.endswith("embeddings.position_ids"):
            for pattern, new in RENAMED:
                key = re.sub(pattern, new, key)
            out[key] = tensor
    for query in [k for k in out if ".attn.q_proj." in k]:
        names = [query.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        missing = [name for name in names if name not in out]
        if missing:
            raise TastemakerError(f"{origin} has {query} but not {', '.join(missing)}")
        out[query.replace(".q_proj.", ".in_proj_")] = torch.cat([out.pop(name) for name in names])
    return out
