"""Layers that the released SiT, REPA, JiT and RAE networks share, under the names of their checkpoints' keys.

Transformers whose blocks are modulated by time and class (DiT, Peebles & Xie 2023, arXiv 2212.09748). Letters:
B batch, N tokens, D width, d width of one attention head, C H W what the flow draws, P side of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rotation = tuple[Tensor, Tensor]  # cosines and sines, (N, d) each
MOST_PERIOD = 10_000.0  # of sinusoidal and rotary tables


def layer_norm(width: int) -> nn.Module:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def rms_norm(width: int) -> nn.Module:
    return nn.RMSNorm(width, eps=1e-6)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, D); shift and scale (B, 1, D), or (B, N, D) where each token has its own."""
    return x * (1 + scale) + shift


class Patches(nn.Module):
    """(B, C, H, W) -> (B, N, D)."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """(B, N, P P C), N a square, channel last in each patch -> (B, C, H, W)."""
    side = math.isqrt(tokens.shape[1])
    x = tokens.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))  # (B, h, w, P, P, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class TimeEmbedding(nn.Module):
    """t (B,) as it is, in [0, 1] and not times 1000 -> (B, D): 128 cosines, then 128 sines, and an MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(MOST_PERIOD) * torch.arange(128, device=t.device) / 128)
        angle = t[:, None].float() * frequencies
        return self.mlp(torch.cat([angle.cos(), angle.sin()], -1).to(next(self.mlp.parameters())))


class ClassTable(nn.Module):
    """Class numbers (B,) -> (B, D); the last row is the null class."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class Attention(nn.Module):
    """qk_norm: root mean square of each head's queries and keys, with a learned scale."""

    def __init__(self, width: int, heads: int, qk_norm: bool = False):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = (rms_norm(width // heads) if qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotated(q, *rotation), rotated(k, *rotation)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (..., N, d): neighbouring pairs of numbers turned by their token's angles (Su et al., arXiv 2104.09864)."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos.to(x) + turned * sin.to(x)


def rotary_tables(side: int, head: int, device: torch.device | None = None) -> Rotation:
    """Of side x side tokens: the first half of a head's numbers turns with the row, the other with the column."""
    half = head // 2
    frequencies = MOST_PERIOD ** -(torch.arange(0, half, 2, device=device).float() / half)
    angle = torch.outer(torch.arange(side, device=device).float(), frequencies).repeat_interleave(
        2, 1
    )  # (side, d / 2)
    rows, columns = angle.repeat_interleave(side, 0), angle.repeat(side, 1)
    both = torch.cat([rows, columns], 1)  # (N, d)
    return both.cos(), both.sin()


class Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """Shazeer 2020, arXiv 2002.05202: one half of the first layer's answer gates the other."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and MLP, each with shift, scale and gate from c: (B, 1, D), or (B, N, D) token by token."""

    def __init__(self, width: int, attention: Attention, mlp: nn.Module, norm: Callable[[int], nn.Module] = rms_norm):
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attn, self.mlp = attention, mlp
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor, rotation: Rotation | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, -1)
        x = x + gate1 * self.attn(modulate(self.norm1(x), shift1, scale1), rotation)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """(B, N, D) and c as in Block -> (B, N, out)."""

    def __init__(self, width: int, out: int, norm: Callable[[int], nn.Module] = rms_norm):
        super().__init__()
        self.norm_final, self.linear = norm(width), nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(modulate(self.norm_final(x), *self.adaLN_modulation(c).chunk(2, -1)))


def fixed_positions(side: int, width: int) -> nn.Parameter:
    """(1, N, D), not trained: sines and cosines of the column in the first half, of the row in the other (MAE,
    arXiv 2111.06377)."""
    frequencies = MOST_PERIOD ** -(torch.arange(width // 4) / (width / 4))
    angle = torch.outer(torch.arange(side).float(), frequencies)
    one = torch.cat([angle.sin(), angle.cos()], 1)  # (side, D / 2)
    both = torch.cat([one.repeat(side, 1), one.repeat_interleave(side, 0)], 1)
    return nn.Parameter(both[None], requires_grad=False)


def begin_at_zero(network: nn.Module) -> None:
    """Before training from scratch: every block passes its input on, and the answer is 0 (adaLN-Zero)."""
    for module in network.modules():
        zeroed = [module.adaLN_modulation[-1]] if isinstance(module, (Block, FinalLayer)) else []
        zeroed += [module.linear] if isinstance(module, FinalLayer) else []
        for layer in zeroed:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
