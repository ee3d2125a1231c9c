"""The small transformer of the embedded generators, in the manner of JiT (Li & He 2025, arXiv 2511.13720).

Image patches and caption words are tokens of one sequence. Letters: B batch, N image tokens, L caption tokens,
M all tokens, D width, P patch.
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
    patch: int = 8  # side of a patch, pixels
    width: int = 160  # D
    depth: int = 6  # transformer blocks
    heads: int = 5  # of attention
    registers: int = 2  # extra tokens that carry no input
    refine: int = 24  # channels of the convolutions that smooth patch borders
    scale: int = 2  # pixels of the picture for one of the flow, a side; 1: the flow draws the picture itself
    decoder: int = 32  # channels of the decoder that enlarges


class TimeEmbedding(nn.Module):
    """t in [0, 1] -> (B, D), through 64 log-spaced frequencies."""

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
        self.table = nn.Parameter(torch.randn(6, width) * width**-0.5)

    def forward(self, h: Tensor, modulation: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = (modulation + self.table).unsqueeze(2).unbind(1)  # (B, 1, D)
        h = h + gate1 * self.attend(self.norm1(h) * (1 + scale1) + shift1)
        return h + gate2 * self.down(F.gelu(self.up(self.norm2(h) * (1 + scale2) + shift2), approximate="tanh"))

    def attend(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, M, D / heads)
        q, k = self.norm_q(q), self.norm_k(k)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TinyFlowNetwork(nn.Module):
    """Predicts the clean picture x1 from a noisy one.

    The caption's words join the sequence, and their mean joins the time in the modulation. Convolutions over the
    drawn and the noisy picture take the seams between patches away.
    """

    def __init__(self, config: NetworkConfig, words: int, length: int):
        super().__init__()
        self.config, width = config, config.width
        self.tokens = (config.size // config.patch) ** 2  # N
        self.patchify = nn.Linear(3 * config.patch**2, width)
        self.word = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(1, config.registers + length + self.tokens, width) * 0.02)
        self.register = nn.Parameter(torch.randn(1, config.registers, width) * 0.02)
        self.time, self.caption = TimeEmbedding(width), nn.Linear(width, width)
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm, self.draw = nn.RMSNorm(width), nn.Linear(width, 3 * config.patch**2)
        self.refine = nn.Sequential(
            nn.Conv2d(6, config.refine, 3, padding=1), nn.SiLU(),
            nn.Conv2d(config.refine, config.refine, 3, padding=1), nn.SiLU(),
            nn.Conv2d(config.refine, 3, 3, padding=1),
        )  # fmt: skip
        for last in (self.draw, self.refine[-1], self.modulate[1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """x (B, 3, H, W) in [-1, 1] plus noise, t (B,), words (B, L) int64 -> x1 (B, 3, H, W)."""
        patch, side = self.config.patch, self.config.size // self.config.patch
        caption = self.word(words)  # (B, L, D)
        patches = self.patchify(F.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2))  # (B, N, D)
        h = torch.cat([self.register.expand(len(x), -1, -1), caption, patches], 1) + self.place  # (B, M, D)
        modulation = self.modulate(self.time(t) + self.caption(caption.mean(1))).unflatten(-1, (6, -1))
        for block in self.blocks:
            h = block(h, modulation)
        drawn = self.draw(self.norm(h[:, -self.tokens :])).transpose(1, 2).unflatten(2, (side, side))
        drawn = F.pixel_shuffle(drawn, patch)
        return drawn + self.refine(torch.cat([drawn, x], 1))


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
