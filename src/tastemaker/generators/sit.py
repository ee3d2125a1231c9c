"""SiT (Ma et al. 2024, arXiv 2401.08740) and REPA (Yu et al. 2025, arXiv 2410.06940): `sit:PATH` and `repa:PATH`.

One network, two directions of time. SiT has ours: t = 0 noise, and it answers data - noise. REPA has t = 1 noise and
answers noise - data, so v = -network(x, 1 - t); its projectors, which aligned it with an encoder in training, are
loaded and saved but not used in sampling. Letters: B batch, N tokens, D width, C H W a latent, P side of a patch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from ..encoders.blip import count
from ..encoders.official import shapes_of
from ..protocols import Plan
from .class_checkpoints import (
    Checkpoint,
    heads_of,
    network_of,
    read_checkpoint,
    square_side,
    vae_codec,
    vae_folder,
)
from .class_flow import ClassFlow, GuidanceRule, Release, closed, straight
from .dit_parts import (
    Attention,
    Block,
    ClassTable,
    FinalLayer,
    Patches,
    Perceptron,
    TimeEmbedding,
    begin_at_zero,
    fixed_positions,
    layer_norm,
    unpatchify,
)
from .flow import uniform_times
from .samplers import heun

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of the sizes S, B, L and XL
FILES = ("model.safetensors", "weights.safetensors", "SiT-XL-2-256x256.pt", "SiT-XL-2-256.pt", "last.pt")
FIRST_THREE = GuidanceRule(channels=3)  # what SiT's own script guides, of four channels
PROJECTED = 8  # blocks before REPA's projectors


@dataclass(frozen=True)
class SiTConfig:
    """Sizes; the defaults are those of SiT-XL/2 for pictures of 256 x 256."""

    size: int = 32  # H = W of a latent
    patch: int = 2
    channels: int = 4
    answers: int = 8  # channels of the answer; those beyond `channels` are a variance that nobody uses
    width: int = 1152
    depth: int = 28
    heads: int = 16
    hidden: int = 4608  # of the MLPs
    classes: int = 1000
    projectors: tuple[tuple[int, int], ...] = ()  # REPA: hidden width and features of each
    projected: int = PROJECTED  # blocks before them


class SiTNetwork(nn.Module):
    def __init__(self, config: SiTConfig):
        super().__init__()
        self.config, width = config, config.width
        self.x_embedder = Patches(config.channels, width, config.patch)
        self.t_embedder, self.y_embedder = TimeEmbedding(width), ClassTable(config.classes, width)
        self.pos_embed = fixed_positions(config.size // config.patch, width)
        self.blocks = nn.ModuleList(
            Block(width, Attention(width, config.heads), Perceptron(width, config.hidden), layer_norm)
            for _ in range(config.depth)
        )
        self.projectors = nn.ModuleList(projector(width, *sizes) for sizes in config.projectors)
        self.final_layer = FinalLayer(width, config.answers * config.patch**2, layer_norm)
        begin_at_zero(self)

    def forward(self, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        """x (B, C, H, W), the release's t (B,) in [0, 1], classes (B,) int64 -> (B, answers, H, W)."""
        tokens, c = self.begin(x, t, classes)
        for block in self.blocks:
            tokens = block(tokens, c)
        return unpatchify(self.final_layer(tokens, c), self.config.patch)

    def begin(self, x: Tensor, t: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) and what modulates them (B, 1, D)."""
        return self.x_embedder(x) + self.pos_embed, (self.t_embedder(t) + self.y_embedder(classes))[:, None]

    def projections(self, x: Tensor, t: Tensor, classes: Tensor) -> list[Tensor]:
        """(B, N, features) of each projector: what REPA's training compares with an encoder's features."""
        tokens, c = self.begin(x, t, classes)
        for block in self.blocks[: self.config.projected]:
            tokens = block(tokens, c)
        return [project(tokens) for project in self.projectors]


def projector(width: int, hidden: int, features: int) -> nn.Sequential:
    layers = [nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)]
    return nn.Sequential(*layers)


# from files


def read_network(path: str | os.PathLike) -> tuple[SiTNetwork, Checkpoint]:
    """From a weight file or a folder, SiT's or REPA's, with strict keys. Raises TastemakerError."""
    checkpoint = with_joined_blocks(read_checkpoint(path, FILES, inside="ema"))
    config = config_of(checkpoint)
    return network_of(lambda: SiTNetwork(config), checkpoint, ("pos_embed", "projectors.")), checkpoint


def with_joined_blocks(checkpoint: Checkpoint) -> Checkpoint:
    """REPA's first files count the blocks after its projectors from 0 again, as `decoder_blocks`."""
    first = count(checkpoint.tensors, r"blocks\.(\d+)\.")

    def joined(match: re.Match) -> str:
        return f"blocks.{int(match[1]) + first}."

    named = {re.sub(r"^decoder_blocks\.(\d+)\.", joined, k): v for k, v in checkpoint.tensors.items()}
    return replace(checkpoint, tensors=named)


def config_of(checkpoint: Checkpoint) -> SiTConfig:
    """The network's sizes from its tensors' shapes, and the heads from what is said or known."""
    keys = ("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight", "blocks.0.mlp.fc1.weight")
    tensors, origin = checkpoint.tensors, str(checkpoint.path)
    patches, positions, table, up, out = shapes_of(
        tensors, (*keys, "final_layer.linear.bias"), origin, "SiT or REPA checkpoint"
    )
    width, channels, patch, _ = patches
    projectors = [
        (tensors[f"projectors.{i}.0.bias"].shape[0], tensors[f"projectors.{i}.4.bias"].shape[0])
        for i in range(count(tensors, r"projectors\.(\d+)\.4\.bias"))
        if f"projectors.{i}.0.bias" in tensors
    ]
    return SiTConfig(
        size=square_side(positions[1], checkpoint) * patch,
        patch=patch,
        channels=channels,
        answers=out[0] // patch**2,
        width=width,
        depth=count(tensors, r"blocks\.(\d+)\."),
        heads=heads_of(width, checkpoint, HEADS),
        hidden=up[0],
        classes=table[0] - 1,
        projectors=tuple(projectors),
        projected=checkpoint.said.get("encoder_depth", PROJECTED),
    )


def load(
    path: str | os.PathLike, release: Release | None = None, vae: str | os.PathLike | None = None, device: str = "cpu"
) -> ClassFlow:
    """A SiT checkpoint, or with release=REPA a REPA checkpoint, and the SD-VAE in the folder `vae` beside it.

    Raises TastemakerError for files that do not fit or a VAE that is not there, MissingExtra without diffusers.
    """
    network, checkpoint = read_network(path)
    config, folder = network.config, vae_folder(checkpoint, vae)
    about = {"num_heads": config.heads, "encoder_depth": config.projected, "vae": str(folder)}
    codec = vae_codec(folder, config.size)
    codec.vae.to(device)
    shape = (config.channels, config.size, config.size)
    return ClassFlow(network.to(device), shape, codec, release or SIT, about)


# the two releases


def sit_velocity(network: nn.Module, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
    return network(x, t, classes)[:, : x.shape[1]].float()


def repa_velocity(network: nn.Module, x: Tensor, t: Tensor, classes: Tensor) -> Tensor:
    return -network(x, 1 - t, classes)[:, : x.shape[1]].float()


def heun_plan(steps: int) -> Plan:
    """2 steps - 1 evaluations: the last step is Euler's."""
    return Plan(heun, uniform_times(steps))


SIT = Release(
    kind="sit",
    prefix="",
    velocity=sit_velocity,
    target=straight,
    native_time=lambda t: t,
    draw_time=lambda random: random.random(),
    plan=heun_plan,
    steps=50,
    guidance=4.0,
)
REPA = replace(
    SIT,
    kind="repa",
    velocity=repa_velocity,
    native_time=lambda t: 1 - t,
    guidance=1.8,
    rule=GuidanceRule(closed(0.0, 0.7), held=True),
)
load_repa = partial(load, release=REPA)
