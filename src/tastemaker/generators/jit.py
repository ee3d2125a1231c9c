"""JiT (Li & He 2025, arXiv 2511.13720): `jit:PATH`, pixels without a VAE. The network predicts the clean picture.

Theirs: z = u x1 + (1 - u) a e with noise of standard deviation a (1 for pictures of 256, 2 for 512), u = 0 noise.
With d(t) = 1 - t + a t this is our straight path in other units:

    x = z d(t) / a,    u = a t / d(t),    v = (v_native + (a - 1) x) / d(t)

and for a = 1 it is the same. Their velocity is (x1 - z) / max(1 - u, 0.05), of what the network says and, in the
loss, of what is true. Letters: B batch, N tokens, M tokens with those of the class in front, D width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.blip import count
from ..encoders.official import shapes_of
from ..protocols import Plan, Transition
from .class_checkpoints import Checkpoint, network_of, read_checkpoint, square_side
from .class_flow import ClassFlow, GuidanceRule, Release, opened
from .dit_parts import (
    Attention,
    Block,
    ClassTable,
    FinalLayer,
    Rotation,
    SwiGLU,
    TimeEmbedding,
    begin_at_zero,
    fixed_positions,
    rotary_tables,
    unpatchify,
)
from .flow import PixelCodec, uniform_times
from .paths import expand, interpolate, x1_to_velocity
from .samplers import Velocity, heun

FILES = ("model.safetensors", "weights.safetensors", "checkpoint-last.pth")
TABLES = ("feat_rope.", "feat_rope_incontext.")  # rotary tables, which some copies of the code store
FLOOR = 0.05  # the least 1 - u that is divided by


@dataclass(frozen=True)
class JiTConfig:
    """Sizes; the defaults are those of JiT-H/16 for pictures of 256 x 256."""

    size: int = 256  # H = W
    patch: int = 16
    channels: int = 3
    bottleneck: int = 256  # of the patch embedding
    width: int = 1280
    depth: int = 32
    heads: int = 16
    hidden: int = 3413  # of the MLPs
    classes: int = 1000
    context: int = 32  # class tokens
    context_start: int = 10  # the block that they enter before


class BottleneckPatches(nn.Module):
    """(B, C, H, W) -> (B, N, D), through fewer numbers than a patch has."""

    def __init__(self, channels: int, bottleneck: int, width: int, patch: int):
        super().__init__()
        self.proj1 = nn.Conv2d(channels, bottleneck, patch, patch, bias=False)
        self.proj2 = nn.Conv2d(bottleneck, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj2(self.proj1(x)).flatten(2).transpose(1, 2)


class JiTNetwork(nn.Module):
    def __init__(self, config: JiTConfig):
        super().__init__()
        self.config, width = config, config.width
        self.x_embedder = BottleneckPatches(config.channels, config.bottleneck, width, config.patch)
        self.t_embedder, self.y_embedder = TimeEmbedding(width), ClassTable(config.classes, width)
        self.pos_embed = fixed_positions(config.size // config.patch, width)
        self.in_context_posemb = nn.Parameter(torch.randn(1, config.context, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, Attention(width, config.heads, qk_norm=True), SwiGLU(width, config.hidden))
            for _ in range(config.depth)
        )
        self.final_layer = FinalLayer(width, config.channels * config.patch**2)
        begin_at_zero(self)

    def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """z (B, 3, H, W), the release's u (B,) in [0, 1], classes (B,) int64 -> x1 (B, 3, H, W) in [-1, 1]."""
        label = self.y_embedder(classes)
        c = (self.t_embedder(t) + label)[:, None]
        tokens, (plain, longer) = self.x_embedder(x) + self.pos_embed, self.rotations(x.device)
        for i, block in enumerate(self.blocks):
            if i == self.config.context_start:
                tokens = torch.cat([label[:, None] + self.in_context_posemb, tokens], 1)  # (B, M, D)
            tokens = block(tokens, c, plain if i < self.config.context_start else longer)
        return unpatchify(self.final_layer(tokens[:, self.config.context :], c), self.config.patch)

    def rotations(self, device: torch.device) -> tuple[Rotation, Rotation]:
        """Of the N tokens, and of M, whose class tokens are not turned."""
        config = self.config
        cos, sin = rotary_tables(config.size // config.patch, config.width // config.heads, device)
        still = cos.new_ones(config.context, cos.shape[1])
        return (cos, sin), (torch.cat([still, cos]), torch.cat([0 * still, sin]))


# from files


def read_network(path: str | os.PathLike) -> tuple[JiTNetwork, Checkpoint]:
    """From a weight file or a folder, with strict keys: of a training checkpoint `model_ema1`, which its authors
    sample from. Raises TastemakerError."""
    found = read_checkpoint(path, FILES, inside="model_ema1", prefix="net.")
    tensors = {k: v for k, v in found.tensors.items() if not k.startswith(TABLES)}
    checkpoint = Checkpoint(found.path, tensors, found.said)
    config = config_of(checkpoint)
    return network_of(lambda: JiTNetwork(config), checkpoint, ("pos_embed",)), checkpoint


def config_of(checkpoint: Checkpoint) -> JiTConfig:
    """The network's sizes from its tensors' shapes; where the class tokens enter as said, else after a
    third of the blocks, as in sizes B, L and H."""
    keys = ("x_embedder.proj1.weight", "pos_embed", "y_embedder.embedding_table.weight", "in_context_posemb")
    patches, positions, table, context, head, gated = shapes_of(
        checkpoint.tensors,
        (*keys, "blocks.0.attn.q_norm.weight", "blocks.0.mlp.w3.weight"),
        str(checkpoint.path),
        "JiT checkpoint",
    )
    bottleneck, channels, patch, _ = patches
    depth = count(checkpoint.tensors, r"blocks\.(\d+)\.")
    return JiTConfig(
        size=square_side(positions[1], checkpoint) * patch,
        patch=patch,
        channels=channels,
        bottleneck=bottleneck,
        width=positions[2],
        depth=depth,
        heads=positions[2] // head[0],
        hidden=gated[1],
        classes=table[0] - 1,
        context=context[1],
        context_start=checkpoint.said.get("in_context_start", depth // 3),
    )


def load(path: str | os.PathLike, noise_scale: float | None = None, device: str = "cpu") -> ClassFlow:
    """A JiT checkpoint. noise_scale: the standard deviation of its noise; None: as said beside the weights, else 1,
    or 2 for pictures of 512 and more, as its authors trained. Raises TastemakerError for files that do not fit."""
    network, checkpoint = read_network(path)
    config = network.config
    said = checkpoint.said.get("noise_scale", 1.0 if config.size < 512 else 2.0)
    scale = said if noise_scale is None else noise_scale
    about = {"in_context_start": config.context_start, "noise_scale": scale}
    shape = (config.channels, config.size, config.size)
    return ClassFlow(network.to(device), shape, PixelCodec(), jit_release(scale), about)


# the release


def jit_release(noise_scale: float = 1.0) -> Release:
    """Heun with an Euler last step, guidance 2.2 (JiT-H; 2.9 for its other sizes) where 0.1 < u < 1, logit-normal
    times with mean -0.8 and scale 0.8."""
    return Release(
        kind="jit",
        prefix="net.",
        velocity=partial(jit_velocity, noise_scale=noise_scale),
        target=partial(jit_target, noise_scale=noise_scale),
        native_time=partial(native_time, noise_scale=noise_scale),
        draw_time=partial(draw_time, noise_scale=noise_scale),
        plan=lambda steps: jit_plan(steps, noise_scale),
        steps=50,
        guidance=2.2,
        rule=GuidanceRule(opened(0.1, 1.0)),
    )


def stretch(t: Tensor, noise_scale: float) -> Tensor:
    """d(t)."""
    return 1 - t + noise_scale * t


def native_time(t: Tensor, noise_scale: float) -> Tensor:
    """u of our t."""
    return noise_scale * t / stretch(t, noise_scale)


def our_time(u: Tensor, noise_scale: float) -> Tensor:
    """t of their u."""
    return u / (u + noise_scale * (1 - u))


def native_state(x: Tensor, t: Tensor, noise_scale: float) -> Tensor:
    """z of our x."""
    return x * noise_scale / expand(stretch(t, noise_scale), x)


def our_velocity(x1: Tensor, x: Tensor, t: Tensor, noise_scale: float) -> Tensor:
    """Our v where the clean picture is x1, with their floor."""
    native = x1_to_velocity(x1, native_state(x, t, noise_scale), native_time(t, noise_scale), FLOOR)
    return (native + (noise_scale - 1) * x) / expand(stretch(t, noise_scale), x)


def jit_velocity(network: nn.Module, x: Tensor, t: Tensor, classes: Tensor, noise_scale: float) -> Tensor:
    x1 = network(native_state(x, t, noise_scale), native_time(t, noise_scale), classes).float()
    return our_velocity(x1, x, t, noise_scale)


def jit_target(x1: Tensor, x0: Tensor, t: Tensor, noise_scale: float) -> Tensor:
    return our_velocity(x1, interpolate(x1, x0, t), t, noise_scale)


def draw_time(random: np.random.Generator, noise_scale: float) -> float:
    u = 1 / (1 + math.exp(0.8 - 0.8 * random.standard_normal()))
    return u / (u + noise_scale * (1 - u))


def jit_plan(steps: int, noise_scale: float) -> Plan:
    """Even steps in their time; 2 steps - 1 evaluations."""
    if noise_scale == 1:
        return Plan(heun, uniform_times(steps))
    return Plan(partial(in_native_units, heun, noise_scale), our_times(steps, noise_scale))


def our_times(steps: int, noise_scale: float) -> tuple[float, ...]:
    return tuple(u / (u + noise_scale * (1 - u)) for u in uniform_times(steps))


def in_native_units(
    sampler: Callable[..., Transition],
    noise_scale: float,
    velocity: Velocity,
    x: Tensor,
    t: Tensor,
    s: Tensor,
    eta: float,
) -> Transition:
    """A deterministic sampler's step in their z and u, where a step of second order is not quite the same as ours."""
    a = noise_scale

    def native(z: Tensor, u: Tensor) -> Tensor:
        now = our_time(u, a)
        x = z * expand(stretch(now, a), z) / a
        return expand(stretch(now, a), z) * velocity(x, now) - (a - 1) * x

    step = sampler(native, native_state(x, t, a), native_time(t, a), native_time(s, a), eta)
    return Transition(step.mean * expand(stretch(s, a), x) / a, step.std)
