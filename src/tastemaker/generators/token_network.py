"""The transformer of the embedded masked-token generators: caption words and picture tokens in one sequence.

Tokens come in as their bits, so that codes which differ in one bit look alike, or as the mask's own vector; 3 x 3
convolutions over the grid stand before and behind the blocks, as in networks.py. Attention goes everywhere, as it
does among Show-o's picture tokens. Letters: B batch, N picture tokens, L caption tokens, M all tokens, D width, V
codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import expect
from .networks import Block, Residual
from .vq import bits_of


@dataclass(frozen=True)
class TokenNetworkConfig:
    """Shape of a masked-token network."""

    side: int = 8  # tokens of a picture, a side
    bits: int = 12  # of a token; V = 2^bits
    width: int = 192  # D, a multiple of 32
    depth: int = 6  # transformer blocks
    heads: int = 6  # of attention
    registers: int = 2  # extra tokens that carry no input

    def __post_init__(self) -> None:
        expect(self.width >= 32 and self.width % 32 == 0, "a width that is a multiple of 32", self.width)
        expect(self.depth >= 1, "a depth of at least 1", self.depth)


class TokenNetwork(nn.Module):
    """Scores of every code at every position, from what is known and the caption."""

    def __init__(self, config: TokenNetworkConfig, words: int, length: int):
        super().__init__()
        self.config, width = config, config.width
        self.tokens = config.side**2  # N
        self.bits, self.mask = nn.Linear(config.bits, width), nn.Parameter(torch.randn(width) * 0.1)
        self.word = nn.Embedding(words, width, padding_idx=0)  # the null caption is all zeros
        self.place = nn.Parameter(torch.randn(1, config.registers + length + self.tokens, width) * 0.1)
        self.register = nn.Parameter(torch.randn(1, config.registers, width) * 0.1)
        self.caption, self.modulate = nn.Linear(width, width), nn.Linear(width, 6 * width)
        self.enter, self.leave = Residual(width, width, width), Residual(width, width, width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 2**config.bits)
        for parameter in (*self.modulate.parameters(), *self.head.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, words: Tensor) -> Tensor:
        """tokens (B, N) int64, below 0 where masked, words (B, L) int64 -> logits (B, N, V)."""
        side, masked = self.config.side, (tokens < 0)[..., None]  # (B, N, 1)
        seen = torch.where(masked, self.mask, self.bits(bits_of(tokens.clamp_min(0), self.config.bits)))
        caption = self.word(words)  # (B, L, D)
        about = F.silu(self.caption(caption.sum(1) / 2))  # (B, D)
        grid = self.enter(seen.transpose(1, 2).unflatten(2, (side, side)), about)  # (B, D, side, side)
        h = torch.cat([self.register.expand(len(tokens), -1, -1), caption, grid.flatten(2).transpose(1, 2)], 1)
        h, modulation = h + self.place, self.modulate(about).unflatten(-1, (6, -1))  # (B, M, D), (B, 6, D)
        for block in self.blocks:
            h = block(h, modulation)
        grid = self.norm(h[:, -self.tokens :]).transpose(1, 2).unflatten(2, (side, side))
        return self.head(self.leave(grid, about).flatten(2).transpose(1, 2))
