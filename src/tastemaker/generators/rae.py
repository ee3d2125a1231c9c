"""RAE's DiT with a wide head (Zheng et al. 2025, arXiv 2510.11690): `rae:PATH`, a flow of normalised DINOv2 latents.

The head is that of DDT (Wang et al. 2025, arXiv 2504.05741): a deep narrow transformer reads the noisy latent and
tells, token by token, how a shallow wide one is modulated. Theirs: t = 1 noise, t = 0 data, the network answers
noise - data, so v = -network(x, 1 - t), as in REPA. Letters: B batch, N tokens, D width of the narrow transformer, E
of the wide head, d of one attention head, C H W a latent.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.blip import count
from ..encoders.official import shapes_of
from ..protocols import Plan
from .class_checkpoints import Checkpoint, network_of, read_checkpoint, square_side
from .class_flow import ClassFlow, GuidanceRule, Release, closed, straight
from .dit_parts import (
    Attention,
    Block,
    ClassTable,
    FinalLayer,
    Patches,
    Rotation,
    SwiGLU,
    begin_at_zero,
    fixed_positions,
    rotary_tables,
    unpatchify,
)
from .rae_codec import load_codec
from .samplers import euler
from .sit import repa_velocity

FILES = (
    "model.safetensors",
    "weights.safetensors",
    "stage2_model.pt",
    "DiTs/Dinov2/wReg_base/ImageNet256/DiTDH-XL/stage2_model.pt",  # in the release's own tree
)
HEAD_DEPTH = 2  # blocks of the wide head in all released networks
LEAST_NOISE = 0.001  # their grids end this far from data, before the shift
SHIFT_BASE = 4096  # numbers in a latent whose grid is not shifted


@dataclass(frozen=True)
class RaeConfig:
    """Sizes; the defaults are those of DiTDH-XL for pictures of 256 x 256."""

    size: int = 16  # H = W of a latent
    patch: int = 1
    channels: int = 768
    widths: tuple[int, int] = (1152, 2048)  # D, E
    depths: tuple[int, int] = (28, 2)
    heads: tuple[int, int] = (16, 16)
    hidden: tuple[int, int] = (3072, 5461)  # of the MLPs
    classes: int = 1000
    qk_norm: bool = False


class FourierTime(nn.Module):
    """t (B,) -> (B, D), through 256 frequencies that were drawn once and are stored."""

    def __init__(self, width: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(256), requires_grad=False)
        self.mlp = nn.Sequential(nn.Linear(512, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None].to(self.W) * self.W
        return self.mlp(torch.cat([angle.sin(), angle.cos()], -1))


class RotaryTables(nn.Module):
    """Cosines and sines (N, d), stored with the weights."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, side: int, head: int):
        super().__init__()
        cos, sin = rotary_tables(side, head)
        self.register_buffer("freqs_cos", cos)
        self.register_buffer("freqs_sin", sin)

    def tables(self) -> Rotation:
        return self.freqs_cos, self.freqs_sin


class RaeNetwork(nn.Module):
    def __init__(self, config: RaeConfig):
        super().__init__()
        self.config, (narrow, wide) = config, config.widths
        side = config.size // config.patch
        self.s_embedder = Patches(config.channels, narrow, config.patch)
        self.x_embedder = Patches(config.channels, wide, config.patch)
        self.s_projector = nn.Linear(narrow, wide) if narrow != wide else nn.Identity()
        self.t_embedder, self.y_embedder = FourierTime(narrow), ClassTable(config.classes, narrow)
        self.pos_embed = fixed_positions(side, narrow)
        self.enc_feat_rope, self.dec_feat_rope = (
            RotaryTables(side, width // heads) for width, heads in zip(config.widths, config.heads)
        )
        self.blocks = nn.ModuleList(
            Block(width, Attention(width, heads, config.qk_norm), SwiGLU(width, hidden))
            for width, heads, hidden, depth in zip(config.widths, config.heads, config.hidden, config.depths)
            for _ in range(depth)
        )
        self.final_layer = FinalLayer(wide, config.channels * config.patch**2)
        begin_at_zero(self)

    def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """x (B, C, H, W), the release's t (B,) in [0, 1], classes (B,) int64 -> noise - data (B, C, H, W)."""
        time, (deep, _) = self.t_embedder(t), self.config.depths
        c = F.silu(time + self.y_embedder(classes))[:, None]  # (B, 1, D); each block applies SiLU once more
        about, rotation = self.s_embedder(x) + self.pos_embed, self.enc_feat_rope.tables()
        for block in self.blocks[:deep]:
            about = block(about, c, rotation)
        about = self.s_projector(F.silu(time[:, None] + about))  # (B, N, E)
        tokens, rotation = self.x_embedder(x), self.dec_feat_rope.tables()
        for block in self.blocks[deep:]:
            tokens = block(tokens, about, rotation)
        return unpatchify(self.final_layer(tokens, about), self.config.patch)


# from files


def read_network(path: str | os.PathLike) -> tuple[RaeNetwork, Checkpoint]:
    """From a weight file or a folder, with strict keys. Raises TastemakerError."""
    checkpoint = read_checkpoint(path, FILES, inside="ema")
    config = config_of(checkpoint)
    return network_of(lambda: RaeNetwork(config), checkpoint, ("pos_embed", "t_embedder.W")), checkpoint


def config_of(checkpoint: Checkpoint) -> RaeConfig:
    """The network's sizes from its tensors' shapes; the head's depth as said, else that of all released ones."""
    tensors, origin = checkpoint.tensors, str(checkpoint.path)
    blocks, said = count(tensors, r"blocks\.(\d+)\."), checkpoint.said.get("depth")
    depths = (blocks - HEAD_DEPTH, HEAD_DEPTH) if said is None else (said[0], said[1])
    hidden = ("blocks.0.mlp.w3.weight", f"blocks.{depths[0]}.mlp.w3.weight")
    keys = ("s_embedder.proj.weight", "x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight")
    tables = ("enc_feat_rope.freqs_cos", "dec_feat_rope.freqs_cos")
    narrow, wide, positions, table, first, second, up1, up2 = shapes_of(
        tensors, (*keys, *tables, *hidden), origin, "RAE stage 2 checkpoint"
    )
    return RaeConfig(
        size=square_side(positions[1], checkpoint) * narrow[2],
        patch=narrow[2],
        channels=narrow[1],
        widths=(narrow[0], wide[0]),
        depths=depths,
        heads=(narrow[0] // first[1], wide[0] // second[1]),
        hidden=(up1[1], up2[1]),
        classes=table[0] - 1,
        qk_norm="blocks.0.attn.q_norm.weight" in tensors,
    )


def load(path: str | os.PathLike, codec: str | os.PathLike | None = None, device: str = "cpu") -> ClassFlow:
    """An RAE stage 2 checkpoint with its decoder, statistics and, to encode pictures, DINOv2 (see `rae_codec`).

    codec: the folder of these; None: as a saved generator remembers it, else that of the checkpoint. Raises
    TastemakerError for files that do not fit or are not there.
    """
    network, checkpoint = read_network(path)
    config, near = network.config, Path(path) if Path(path).is_dir() else Path(path).parent
    folder = Path(codec or checkpoint.said.get("codec") or near).resolve()
    pictures = load_codec(folder, (config.channels, config.size, config.size), device)
    about = {"depth": list(config.depths), "codec": str(folder)}
    shape = (config.channels, config.size, config.size)
    return ClassFlow(network.to(device), shape, pictures, rae_release(shift_of(math.prod(shape))), about)


# the release


def rae_release(shift: float) -> Release:
    """Euler on the shifted grid, 49 steps; no guidance by default, and where it is asked for, at all times."""
    return Release(
        kind="rae",
        prefix="",
        velocity=repa_velocity,
        target=straight,
        native_time=lambda t: 1 - t,
        draw_time=partial(draw_time, shift=shift),
        plan=lambda steps: Plan(euler, shifted_grid(steps, shift)),
        steps=49,
        guidance=1.0,
        rule=GuidanceRule(closed(0.0, 1.0)),
    )


def shift_of(numbers: int) -> float:
    """How much denser the grid is near the noise for a latent of so many numbers (arXiv 2510.11690, section 4.2)."""
    return math.sqrt(numbers / SHIFT_BASE)


def shifted_grid(steps: int, shift: float) -> tuple[float, ...]:
    """steps + 1 of our times. The last is not quite 1: they take the latent there, 0.7 % noise for shift 6.9, as it
    is."""
    even = (1 - (1 - LEAST_NOISE) * k / steps for k in range(steps + 1))  # theirs, before the shift
    return tuple(1 - shift * u / (1 + (shift - 1) * u) for u in even)


def draw_time(random: np.random.Generator, shift: float) -> float:
    u = random.random()
    return 1 - shift * u / (1 + (shift - 1) * u)
