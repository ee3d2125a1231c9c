"""The released tokenizer of Show-o, a MAGVIT-v2 of single pictures: its network under the release's keys, its codec.

A convolutional encoder and decoder (of the shape of VQGAN, Esser et al. 2021, arXiv 2012.09841) around a lookup-free
quantiser (Yu et al. 2023, arXiv 2310.05737): 13 bits a token, 16 x 16 pixels of the release. The sizes are read from
the tensors. Letters: B batch, b bits of a token, N = h w tokens, C H W.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.blip import count
from ..encoders.official import assemble, read_tensors, shapes_of, weight_file
from ..errors import TastemakerError, expect
from .vq import codes_of, require_codes

FILES = (
    "model.safetensors",
    "pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
)
GROUPS = 32  # of every normalisation


@dataclass(frozen=True)
class Side:
    """Of the encoder or the decoder: channels and units of each level, the finest first."""

    widths: tuple[int, ...]
    units: tuple[int, ...]

    def __post_init__(self) -> None:
        expect(all(w % GROUPS == 0 for w in self.widths), f"channels in multiples of {GROUPS}", self.widths)


@dataclass(frozen=True)
class MagvitConfig:
    """Shape of a tokenizer. first: channels behind the encoder's first convolution."""

    bits: int
    first: int
    encoder: Side
    decoder: Side

    @property
    def factor(self) -> int:
        """Pixels of a token, a side."""
        return 2 ** (len(self.encoder.widths) - 1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class Unit(nn.Module):
    """Two convolutions around which the input passes by."""

    def __init__(self, narrow: int, wide: int):
        super().__init__()
        self.norm1, self.conv1 = norm(narrow), nn.Conv2d(narrow, wide, 3, padding=1)
        self.norm2, self.conv2 = norm(wide), nn.Conv2d(wide, wide, 3, padding=1)
        if narrow != wide:
            self.nin_shortcut = nn.Conv2d(narrow, wide, 1)

    def forward(self, h: Tensor) -> Tensor:
        past = self.nin_shortcut(h) if hasattr(self, "nin_shortcut") else h
        return past + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(h))))))


class Attention(nn.Module):
    """One head over all places."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, h: Tensor) -> Tensor:
        seen = self.norm(h)
        q, k, v = (one(seen).flatten(2).transpose(1, 2)[:, None] for one in (self.q, self.k, self.v))  # (B, 1, N, C)
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return h + self.proj_out(mixed.transpose(1, 2).unflatten(2, h.shape[2:]))


class Halve(nn.Module):
    """A strided convolution over the picture with a row and a column of zeros below and at the right."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class Double(nn.Module):
    """Every pixel twice each way, and a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.interpolate(h, scale_factor=2.0))


def level(narrow: int, wide: int, units: int, **after: nn.Module) -> nn.Sequential:
    """The units of one resolution, and what leads to the next, under its name."""
    block = nn.Sequential(*(Unit(narrow if k == 0 else wide, wide) for k in range(units)))
    return nn.Sequential(OrderedDict(block=block, **after))


class Middle(nn.Module):
    """At the coarsest resolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = (
            Unit(channels, channels),
            Attention(channels),
            Unit(channels, channels),
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(h)))


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, b, h, w)."""

    def __init__(self, config: MagvitConfig):
        super().__init__()
        widths, last = config.encoder.widths, config.encoder.widths[-1]
        entering = (config.first, *widths)
        self.conv_in = nn.Conv2d(3, config.first, 3, padding=1)
        levels = list(zip(entering, widths, config.encoder.units))
        finer = [level(*sizes, downsample=Halve(sizes[1])) for sizes in levels[:-1]]
        self.down = nn.Sequential(*finer, level(*levels[-1]))
        self.mid, self.norm_out = Middle(last), norm(last)
        self.conv_out = nn.Conv2d(last, config.bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.mid(self.down(self.conv_in(x)))
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(h))))


class Decoder(nn.Module):
    """(B, b, h, w) of signs -> (B, 3, H, W) in about [-1, 1]."""

    def __init__(self, config: MagvitConfig):
        super().__init__()
        widths, last = config.decoder.widths, config.decoder.widths[-1]
        entering = (*widths[1:], last)
        self.post_quant_conv = nn.Conv2d(config.bits, config.bits, 1)
        self.conv_in, self.mid = nn.Conv2d(config.bits, last, 3, padding=1), Middle(last)
        levels = list(zip(entering, widths, config.decoder.units))  # the finest first
        coarser = [level(*sizes, upsample=Double(sizes[1])) for sizes in levels[1:]]
        self.up = nn.ModuleList([level(*levels[0]), *coarser])
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(self.post_quant_conv(z)))
        for one in reversed(self.up):
            h = one(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Codebook(nn.Module):
    """The release keeps the signs of every code, (2^b, b), and the values of the bits, (b,)."""

    def __init__(self, bits: int):
        super().__init__()
        self.register_buffer("embedding", torch.zeros(2**bits, bits))
        self.register_buffer("power_vals", torch.zeros(bits, dtype=torch.int64))


class Magvit(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: MagvitConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = Codebook(config.bits)


class MagvitCodec:
    """Between pictures of one size and (B, N) tokens. Nothing here has a gradient."""

    def __init__(self, tokenizer: Magvit, side: int):
        """side: tokens a side."""
        self.tokenizer, self.side, self.size = tokenizer, side, side * tokenizer.config.factor

    @property
    def device(self) -> torch.device:
        return self.tokenizer.quantize.power_vals.device  # type: ignore[return-value]

    @torch.no_grad()
    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N) int64. Raises TastemakerError for pictures of another size."""
        if images.shape[-2:] != (self.size, self.size):
            raise TastemakerError(
                f"this tokenizer reads pictures of {self.size} x {self.size} pixels, got {images.shape[-1]} x "
                f"{images.shape[-2]}; resize them first"
            )
        return codes_of(self.tokenizer.encoder(images.to(self.device, torch.float32) * 2 - 1))

    @torch.no_grad()
    def decode(self, x1: Tensor) -> Tensor:
        """(B, N) -> (B, 3, H, W), not clamped. Raises TastemakerError for a code outside of the codebook."""
        require_codes(x1, len(self.tokenizer.quantize.embedding))  # type: ignore[arg-type]
        signs: Tensor = self.tokenizer.quantize.embedding[x1.to(self.device)]  # type: ignore  # (B, N, b)
        z = signs.transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.tokenizer.decoder(z) / 2 + 0.5


def config_of(tensors: Mapping[str, Tensor], origin: str) -> MagvitConfig:
    """Its sizes, from the shapes of its tensors."""
    keys = ("encoder.conv_in.weight", "encoder.quant_conv.weight", "decoder.conv_in.weight", "quantize.embedding")
    first, bits, *_ = shapes_of(tensors, keys, origin, "MAGVIT-v2 tokenizer as showlab/magvitv2")

    def side(levels: str) -> Side:
        depth = count(tensors, rf"{levels}\.(\d+)\.")
        units = [count(tensors, rf"{levels}\.{k}\.block\.(\d+)\.") for k in range(depth)]
        outs = [f"{levels}.{k}.block.0.conv1.weight" for k in range(depth)]
        widths = shapes_of(tensors, outs, origin, "MAGVIT-v2 tokenizer as showlab/magvitv2")
        return Side(tuple(shape[0] for shape in widths), tuple(units))

    return MagvitConfig(bits[0], first[0], side("encoder.down"), side("decoder.up"))


def load_magvit(path: str | Path) -> Magvit:
    """From a folder or weight file, frozen, float32. Raises TastemakerError where keys or shapes do not fit."""
    file = weight_file(path, FILES, "a MAGVIT-v2 tokenizer")
    tensors = read_tensors(file)
    config = config_of(tensors, str(file))
    return assemble(lambda: Magvit(config), tensors, str(file))
