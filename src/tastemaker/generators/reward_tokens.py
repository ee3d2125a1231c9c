"""Rewards as tokens that a tiny-flow network attends to (MIRO, Dufour et al. 2025, arXiv 2510.25897, section 3).

A level in [0, 1] says where in the training data a reward lay; each reward has a token of its own, from random
Fourier features of its level and an MLP, and another, learned one where the level is missing. Tokens stand beside
registers and words: every block attends to them with the queries that it has, and their sum joins words and time in
what modulates the convolutions. A fresh network attends with weight 0, so it answers as the one that it began with.
Letters: B batch, R rewards, F features, L caption tokens, M all other tokens, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Block, NetworkConfig, TinyFlowNetwork

FEATURES = 128  # F


class RewardTokens(nn.Module):
    """Levels (B, R), NaN where one is missing -> (B, R, D)."""

    frequencies: Tensor  # (R, F)
    phases: Tensor  # (R, F)

    def __init__(self, rewards: int, width: int):
        super().__init__()
        # rounded, so that a file in half precision keeps them as they were trained with
        self.register_buffer("frequencies", torch.randn(rewards, FEATURES).half().float())
        self.register_buffer("phases", torch.rand(rewards, FEATURES).half().float())
        self.embed = nn.ModuleList(
            nn.Sequential(nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(rewards)
        )
        self.missing = nn.Parameter(torch.randn(rewards, width) * 0.1)
        self.place = nn.Parameter(torch.randn(rewards, width) * 0.02)

    def forward(self, levels: Tensor) -> Tensor:
        turns = levels.nan_to_num()[..., None] * self.frequencies + self.phases  # (B, R, F)
        waves = math.sqrt(2) * (2 * math.pi * turns).cos()
        tokens = torch.stack([embed(waves[:, j]) for j, embed in enumerate(self.embed)], 1)
        return torch.where(levels.isnan()[..., None], self.missing, tokens) + self.place


class RewardBlock(Block):
    """A block that also attends to reward tokens, in a softmax of their own and times a gate for each head that
    begins at 0: what the other tokens see of each other is then untouched (Zhang et al. 2023, arXiv 2303.16199)."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.rewards = nn.Linear(width, 2 * width)
        self.gate = nn.Parameter(torch.zeros(heads))

    def attend(self, h: Tensor, tokens: Tensor | None = None) -> Tensor:
        """h (B, M, D), tokens (B, R, D)."""
        assert tokens is not None
        q, k, v = self.projected(h)
        seen = F.scaled_dot_product_attention(q, k, v)  # (B, heads, M, D / heads)
        k, v = self.rewards(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, R, ...)
        asked = F.scaled_dot_product_attention(q, self.norm_k(k), v)
        return self.out((seen + self.gate[:, None, None] * asked).transpose(1, 2).flatten(2))


class RewardedNetwork(TinyFlowNetwork):
    """TinyFlowNetwork with `rewards` reward tokens."""

    block = RewardBlock

    def __init__(self, config: NetworkConfig, words: int, length: int, rewards: int):
        super().__init__(config, words, length)
        self.rewards, self.wish = RewardTokens(rewards, config.width), nn.Linear(config.width, config.width)
        for parameter in self.wish.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, words: Tensor, levels: Tensor | None = None) -> Tensor:
        """As TinyFlowNetwork, with levels (B, R) in [0, 1], NaN where one is missing -> x1 (B, 3, H, W)."""
        assert levels is not None
        caption, tokens = self.word(words), self.rewards(levels)  # (B, L, D), (B, R, D)
        about = self.time(t) + self.caption(caption.sum(1) / 2) + self.wish(tokens.sum(1) / 2)
        return self.draw(x, caption, about, tokens)


def rewarded(network: TinyFlowNetwork, words: int, length: int, rewards: int, seed: int = 0) -> RewardedNetwork:
    """The network with reward tokens drawn from the seed; the answer is the network's own, to the last bit, whatever
    the levels are. words, length: of the network's vocabulary."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = RewardedNetwork(network.config, words, length, rewards)
    made.load_state_dict({**made.state_dict(), **network.state_dict()})
    return made.train(network.training)
