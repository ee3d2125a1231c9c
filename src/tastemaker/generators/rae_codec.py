"""RAE's stage 1 (Zheng et al. 2025, arXiv 2510.11690): pictures to normalised DINOv2 latents, and a decoder back.

A latent is one token of DINOv2 with registers per patch, without the class and register tokens and without the scale
and bias of the last LayerNorm, minus the mean and over the deviation of each of its numbers on ImageNet. The decoder
is a ViT in the manner of MAE that draws 16 x 16 pixels per token. Letters: B batch, N tokens, C H W a latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.blip import count
from ..encoders.official import assemble, read_tensors, shapes_of
from ..errors import TastemakerError
from .class_checkpoints import Checkpoint, heads_of, place, read_checkpoint
from .diffusers_load import require
from .dit_parts import unpatchify

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
SPARE = 1e-5  # added to the variance
DINO_PATCH = 14
HEADS = {768: 12, 1024: 16, 1152: 16}  # of the decoders ViTB, ViTL and ViTXL
PLACES = {  # in the folder: plain names, then the release's own tree
    "decoder": (
        "decoder/model.pt",
        "decoder.pt",
        "decoder.safetensors",
        "decoders/dinov2/wReg_base/ViTXL_n08/model.pt",
    ),
    "statistics": ("stat.pt", "stat.safetensors", "stats/dinov2/wReg_base/imagenet1k/stat.pt"),
    "encoder": ("encoder/config.json", "dinov2-with-registers-base/config.json"),
}


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes; the defaults are those of the decoder ViTXL."""

    features: int = 768  # C
    tokens: int = 256  # N
    patch: int = 16  # pixels a side of what one token draws
    width: int = 1152
    depth: int = 28
    heads: int = 16
    hidden: int = 4096


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    """A block of a ViT, normalised before; names as transformers gives them."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))
        dense = {"attention": SelfAttention(width, heads), "output": dense_of(width, width)}
        self.attention = nn.ModuleDict(dense)
        self.intermediate, self.output = dense_of(width, hidden), dense_of(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention["attention"](self.layernorm_before(x))
        x = x + self.attention["output"]["dense"](attended)  # type: ignore[index]
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))


def dense_of(width: int, out: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(width, out)})


class RaeDecoder(nn.Module):
    """Tokens (B, N, C) -> pictures (B, 3, H, W) in ImageNet's normalised pixels."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config, width = config, config.width
        self.decoder_embed = nn.Linear(config.features, width)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 1 + config.tokens, width))
        self.trainable_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_layers = nn.ModuleList(Layer(width, config.heads, config.hidden) for _ in range(config.depth))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-12)
        self.decoder_pred = nn.Linear(width, 3 * config.patch**2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.decoder_embed(tokens)
        x = torch.cat([self.trainable_cls_token.expand(len(x), -1, -1), x], 1) + self.decoder_pos_embed
        for layer in self.decoder_layers:
            x = layer(x)
        return unpatchify(self.decoder_pred(self.decoder_norm(x))[:, 1:], self.config.patch)


class RaeCodec:
    """mean, var (C, H, W) of the latents; encoder: DINOv2 of transformers, or None, which can only decode."""

    def __init__(self, decoder: RaeDecoder, mean: Tensor, var: Tensor, encoder: nn.Module | None = None):
        self.decoder, self.encoder = decoder, encoder
        self.mean, self.deviation = mean, (var + SPARE).sqrt()
        self.side = decoder.config.patch * math.isqrt(decoder.config.tokens)  # of a picture, pixels

    @torch.no_grad()
    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, C, h, w); no noise, so that seeds are not used. Raises TastemakerError
        without an encoder or for pictures of another size."""
        if self.encoder is None:
            raise TastemakerError(
                f"pictures cannot be encoded: no DINOv2 with registers beside the decoder; put its folder, as "
                f"transformers saves it, at {Path(PLACES['encoder'][0]).parent}"
            )
        if tuple(images.shape[2:]) != (self.side, self.side):
            raise TastemakerError(
                f"expected pictures of {self.side} x {self.side} pixels, got {tuple(images.shape[2:])}; resize them"
            )
        _, height, width = self.mean.shape
        size = (height * DINO_PATCH, width * DINO_PATCH)
        pixels = F.interpolate(images.to(self.mean).float(), size, mode="bicubic", align_corners=False)
        tokens: Any = self.encoder((pixels - channel(MEAN, pixels)) / channel(STD, pixels)).last_hidden_state
        z = tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
        return (z - self.mean) / self.deviation

    def decode(self, x1: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W), differentiable, not clamped."""
        x1 = x1.to(self.mean)
        pixels = self.decoder((x1 * self.deviation + self.mean).flatten(2).transpose(1, 2))
        return pixels * channel(STD, pixels) + channel(MEAN, pixels)


def channel(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values).reshape(3, 1, 1)


# from files


def load_codec(folder: Path, shape: tuple[int, int, int], device: str = "cpu") -> RaeCodec:
    """Decoder, statistics and, where it is there, the encoder of a folder (PLACES). shape: of a latent.

    Raises TastemakerError where one is not there or does not fit, MissingExtra for an encoder without transformers.
    """
    found = {what: place(folder, names) for what, names in PLACES.items()}
    for what in ("decoder", "statistics"):
        if found[what] is None:
            raise TastemakerError(f"no {what} of RAE in '{folder}'; expected one of {', '.join(PLACES[what])}")
    decoder, (mean, var) = read_decoder(found["decoder"]), read_statistics(found["statistics"], shape)  # type: ignore
    if (decoder.config.features, decoder.config.tokens) != (shape[0], shape[1] * shape[2]):
        raise TastemakerError(
            f"{found['decoder']} decodes {decoder.config.tokens} tokens of {decoder.config.features} numbers; the "
            f"network draws {shape[1] * shape[2]} of {shape[0]}"
        )
    encoder = found["encoder"] and read_encoder(found["encoder"].parent).to(device)
    return RaeCodec(decoder.to(device), mean.to(device), var.to(device), encoder or None)


def read_decoder(path: Path) -> RaeDecoder:
    checkpoint = read_checkpoint(path, (), inside="ema")
    config = decoder_config(checkpoint)
    return assemble(lambda: RaeDecoder(config), checkpoint.tensors, str(path))


def decoder_config(checkpoint: Checkpoint) -> DecoderConfig:
    keys = (
        "decoder_embed.weight",
        "decoder_pos_embed",
        "decoder_pred.bias",
        "decoder_layers.0.intermediate.dense.bias",
    )
    embed, positions, out, hidden = shapes_of(checkpoint.tensors, keys, str(checkpoint.path), "decoder of an RAE")
    return DecoderConfig(
        features=embed[1],
        tokens=positions[1] - 1,
        patch=math.isqrt(out[0] // 3),
        width=embed[0],
        depth=count(checkpoint.tensors, r"decoder_layers\.(\d+)\."),
        heads=heads_of(embed[0], checkpoint, HEADS, "decoder_num_attention_heads"),
        hidden=hidden[0],
    )


def read_statistics(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Mean and variance, (C, H, W) each."""
    found = read_tensors(path)
    if found.keys() != {"mean", "var"} or any(v.numel() not in (shape[0], math.prod(shape)) for v in found.values()):
        raise TastemakerError(f"{path}: expected `mean` and `var` of latents of shape {shape}, got {sorted(found)}")
    mean, var = (
        found[k].reshape(shape if found[k].numel() == math.prod(shape) else (-1, 1, 1)).expand(shape)
        for k in ("mean", "var")
    )
    return mean.contiguous(), var.contiguous()


def read_encoder(folder: Path) -> nn.Module:
    """DINOv2 with registers, frozen, its last LayerNorm without scale and bias. Raises MissingExtra without
    transformers, TastemakerError for a folder that cannot be read."""
    require("transformers")
    from transformers import Dinov2WithRegistersModel

    try:
        encoder: Any = Dinov2WithRegistersModel.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TastemakerError(f"cannot read DINOv2 in '{folder}': {reason}") from error
    encoder = encoder.float().eval().requires_grad_(False)
    nn.init.ones_(encoder.layernorm.weight)
    nn.init.zeros_(encoder.layernorm.bias)
    return encoder
