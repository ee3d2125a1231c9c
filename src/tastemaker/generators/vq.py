"""Pictures as tokens: a small convolutional encoder and decoder around a lookup-free quantiser.

Lookup-free quantisation (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737, section 3.1): a latent of b numbers is rounded
to its signs, and a token is those b bits, the first the most significant; the codebook has V = 2^b codes and no
table. The gradient goes straight through the rounding. Its losses stand in algorithms/tokenizer.py.

Letters: B batch, b bits of a token, N = h w tokens of a picture, V codes, C H W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError, expect
from ..weights import fill, load_weights, save_weights, shape_of

KIND = "tokenizer"


def signs_of_latent(z: Tensor) -> Tensor:
    """-1 or +1, 0 counting as -1; the gradient of the answer is that of z."""
    return z + (torch.where(z > 0, 1.0, -1.0) - z).detach()


def codes_of(z: Tensor) -> Tensor:
    """(B, b, h, w) latents or signs -> (B, N) int64 in [0, 2^b), rows of the picture one after the other."""
    values = 2 ** torch.arange(z.shape[1] - 1, -1, -1, device=z.device)  # (b,)
    return ((z > 0) * values.reshape(-1, 1, 1)).sum(1).flatten(1)


def bits_of(codes: Tensor, bits: int) -> Tensor:
    """(...) int64 in [0, 2^b) -> (..., b) of -1.0 and 1.0."""
    shifts = torch.arange(bits - 1, -1, -1, device=codes.device)
    return (codes[..., None] >> shifts & 1) * 2.0 - 1


def require_codes(codes: Tensor, count: int) -> None:
    """Raise TastemakerError for a code outside of the `count` of the codebook."""
    if codes.numel() and (codes.min() < 0 or codes.max() >= count):
        raise TastemakerError(
            f"expected tokens from 0 to {count - 1}, got {int(codes.min())} to {int(codes.max())}; masked ones "
            "have to be drawn before they are decoded"
        )


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of a tokenizer."""

    size: int = 64  # side of the pictures, pixels
    factor: int = 8  # pixels of a token, a side; a power of 2
    bits: int = 12  # b
    channels: int = 32  # C at half the side; twice as many a level below, at most four times; a multiple of 8

    def __post_init__(self) -> None:
        expect(self.factor in (2, 4, 8, 16, 32), "a factor of 2, 4, 8, 16 or 32", self.factor)
        expect(
            self.size >= self.factor and self.size % self.factor == 0,
            f"a size in multiples of {self.factor}",
            self.size,
        )
        expect(1 <= self.bits <= 18, "bits from 1 to 18", self.bits)
        expect(self.channels >= 8 and self.channels % 8 == 0, "channels that are a multiple of 8", self.channels)

    @property
    def side(self) -> int:
        """Tokens a side."""
        return self.size // self.factor

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the finest first."""
        return [self.channels * min(2**level, 4) for level in range(int(math.log2(self.factor)))]


class Unit(nn.Module):
    """Two convolutions around which the input passes by (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(F.silu(self.norm2(self.first(F.silu(self.norm1(h))))))


def _encoder(config: TokenizerConfig) -> nn.Sequential:
    """(B, 3, H, W) in [-1, 1] -> (B, b, h, w)."""
    widths = config.widths
    layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, padding=1), Unit(widths[0])]
    for fine, coarse in zip(widths, widths[1:]):
        layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1), Unit(coarse)]
    layers += [Unit(widths[-1]), nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], config.bits, 1)]
    return nn.Sequential(*layers)


def _decoder(config: TokenizerConfig) -> nn.Sequential:
    """(B, b, h, w) of signs -> (B, 3, H, W) in about [-1, 1]."""
    widths = config.widths[::-1]
    layers: list[nn.Module] = [nn.Conv2d(config.bits, widths[0], 3, padding=1), Unit(widths[0]), Unit(widths[0])]
    for coarse, fine in zip(widths, widths[1:]):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1), Unit(fine)]
    layers += [nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 12, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)


class Tokenizer(nn.Module):
    """Encoder, quantiser and decoder."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _encoder(config), _decoder(config)

    @classmethod
    def new(cls, config: TokenizerConfig, seed: int = 0) -> Tokenizer:
        """Fresh weights, which depend on the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls(config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> the same drawn from its tokens, not clamped, and the latents (B, b, h, w)."""
        z = self.encoder(images * 2 - 1)
        return self.decoder(signs_of_latent(z)) / 2 + 0.5, z


class TokenCodec:
    """A trained tokenizer between pictures and (B, N) tokens. Nothing here has a gradient."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    @torch.no_grad()
    def encode(self, images: Tensor, seeds: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N) int64. Raises TastemakerError for pictures of another size."""
        side = self.tokenizer.config.size
        if images.shape[-2:] != (side, side):
            raise TastemakerError(
                f"this tokenizer reads pictures of {side} x {side} pixels, got {images.shape[-1]} x "
                f"{images.shape[-2]}; resize them first"
            )
        return codes_of(self.tokenizer.encoder(images * 2 - 1))

    @torch.no_grad()
    def decode(self, x1: Tensor) -> Tensor:
        """(B, N) -> (B, 3, H, W), not clamped. Raises TastemakerError for a code outside of the codebook."""
        config = self.tokenizer.config
        require_codes(x1, 2**config.bits)
        z = bits_of(x1.long(), config.bits).unflatten(1, (config.side, config.side))  # (B, h, w, b)
        return self.tokenizer.decoder(z.movedim(-1, 1)) / 2 + 0.5


def save_tokenizer(tokenizer: Tokenizer, path: Path, recipe: Mapping[str, Any], half: bool = False) -> str:
    """One safetensors file; returns its sha256."""
    said = {"kind": KIND, "network": asdict(tokenizer.config), "recipe": dict(recipe)}
    return save_weights(path, tokenizer.state_dict(), said, half)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """From a file, or a folder with `model.safetensors`, frozen. Raises TastemakerError for another kind."""
    path = Path(path)
    tensors, said = load_weights(path / "model.safetensors" if path.is_dir() else path)
    if said.get("kind") != KIND:
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected '{KIND}'")
    tokenizer = Tokenizer(shape_of(TokenizerConfig, said, str(path)))
    fill(tokenizer, tensors, str(path))
    return tokenizer.requires_grad_(False).eval()
