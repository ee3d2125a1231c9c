"""The small transformer of the embedded generators, in the manner of JiT (Li & He 2025, arXiv 2511.13720).

Image patches and caption words are tokens of one sequence; convolutions stand before and behind it. Letters: B batch,
N image tokens, L caption tokens, M all tokens, D width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a tiny generator's network."""

    size: int = 32  # side of what the flow draws, pixels
    patch: int = 4  # side of a patch, pixels; even
    width: int = 128  # D
    depth: int = 4  # transformer blocks
    heads: int = 4  # of attention
    registers: int = 2  # extra tokens that carry no input
    channels: int = 48  # C of the convolutions at half the patch
    scale: int = 2  # pixels of the picture for one of the flow, a side; 1: the flow draws the picture itself
    decoder: int = 32  # channels of the decoder that enlarges


class TimeEmbedding(nn.Module):
    """t in [0, 1] -> (B, D), through 64 log-spaced frequencies."""

    frequencies: Tensor  # (64,)

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, 6.9, 64)), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.frequencies
        return self.mlp(torch.cat([angle.sin(), angle.cos()], -1))


class Block(nn.Module):
    """Attention and MLP, both modulated by (B, 6, D): one projection of the time shared by all blocks plus a table
    of this block (PixArt-alpha, arXiv 2310.00426)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.RMSNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_q, self.norm_k = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.table = nn.Parameter(torch.tensor([0.0, 0, 1, 0, 0, 1])[:, None].repeat(1, width))  # gates open

    def forward(self, h: Tensor, modulation: Tensor, *beside: Tensor) -> Tensor:
        """beside: what a heir attends to as well."""
        scale1, shift1, gate1, scale2, shift2, gate2 = (modulation + self.table).unsqueeze(2).unbind(1)  # (B, 1, D)
        h = h + gate1 * self.attend(self.norm1(h) * (1 + scale1) + shift1, *beside)
        return h + gate2 * self.down(F.gelu(self.up(self.norm2(h) * (1 + scale2) + shift2), approximate="tanh"))

    def attend(self, h: Tensor) -> Tensor:
        return self.out(F.scaled_dot_product_attention(*self.projected(h)).transpose(1, 2).flatten(2))

    def projected(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, M, D / heads)."""
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.norm_q(q), self.norm_k(k), v


class Residual(nn.Module):
    """Two convolutions, the second modulated by (B, D) (Dhariwal & Nichol 2021, arXiv 2105.05233, section 3.1)."""

    def __init__(self, channels: int, out: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, out)
        self.first, self.second = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.modulate = nn.Linear(width, 2 * out)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, h: Tensor, about: Tensor) -> Tensor:
        scale, shift = self.modulate(about)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1)
        inner = self.norm2(self.first(F.silu(self.norm1(h)))) * (1 + scale) + shift
        return self.skip(h) + self.second(F.silu(inner))


class TinyFlowNetwork(nn.Module):
    """Predicts the clean picture x1 from a noisy one.

    Convolutions make the patches and draw them again, with a skip between (U-ViT, Bao et al. 2022, arXiv 2209.12152,
    keeps such skips too): an object looks the same wherever it stands, which patches alone have to learn place by
    place. Between them a transformer decides what stands where; the caption's words are tokens of its sequence, and
    their sum joins the time in the modulation.
    """

    block: type[Block] = Block

    def __init__(self, config: NetworkConfig, words: int, length: int):
        super().__init__()
        self.config, width, channels = config, config.width, config.channels
        self.tokens = (config.size // config.patch) ** 2  # N
        pixels = 3 * (config.patch // 2) ** 2
        self.enter, self.down = nn.Conv2d(pixels, channels, 3, padding=1), Residual(channels, channels, width)
        self.patchify = nn.Conv2d(channels, width, 2, 2)
        self.word = nn.Embedding(words, width, padding_idx=0)  # the null caption is all zeros
        self.place = nn.Parameter(torch.randn(1, config.registers + length + self.tokens, width) * 0.1)
        self.register = nn.Parameter(torch.randn(1, config.registers, width) * 0.1)
        self.time, self.caption = TimeEmbedding(width), nn.Linear(width, width)
        self.modulate = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(self.block(width, config.heads) for _ in range(config.depth))
        self.norm, self.unpatchify = nn.RMSNorm(width), nn.ConvTranspose2d(width, channels, 2, 2)
        self.up, self.norm_out = Residual(2 * channels, channels, width), nn.GroupNorm(8, channels)
        self.leave = nn.Conv2d(channels, pixels, 3, padding=1)
        for parameter in (*self.leave.parameters(), *self.modulate.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """x (B, 3, H, W) in [-1, 1] plus noise, t (B,), words (B, L) int64 -> x1 (B, 3, H, W)."""
        caption = self.word(words)  # (B, L, D)
        return self.draw(x, caption, self.time(t) + self.caption(caption.sum(1) / 2))

    def draw(self, x: Tensor, caption: Tensor, about: Tensor, *beside: Tensor) -> Tensor:
        """caption (B, L, D); about (B, D): what modulates, before its nonlinearity; beside: see Block."""
        side, half = self.config.size // self.config.patch, self.config.patch // 2
        about = F.silu(about)
        fine = self.down(self.enter(F.pixel_unshuffle(x, half)), about)  # (B, C, H / half, W / half)
        patches = self.patchify(fine).flatten(2).transpose(1, 2)  # (B, N, D)
        h = torch.cat([self.register.expand(len(x), -1, -1), caption, patches], 1) + self.place  # (B, M, D)
        modulation = self.modulate(about).unflatten(-1, (6, -1))
        for block in self.blocks:
            h = block(h, modulation, *beside)
        coarse = self.norm(h[:, -self.tokens :]).transpose(1, 2).unflatten(2, (side, side))  # (B, D, side, side)
        h = self.up(torch.cat([self.unpatchify(coarse), fine], 1), about)
        return F.pixel_shuffle(self.leave(F.silu(self.norm_out(h))), half)


class Enlarger(nn.Module):
    """(B, 3, S, S) in [-1, 1] -> (B, 3, scale S, scale S): nearest neighbours plus what convolutions add to them
    (sub-pixel convolution, Shi et al. 2016, arXiv 1609.05158)."""

    def __init__(self, channels: int, scale: int):
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(),
            nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="nearest") + self.layers(x)
