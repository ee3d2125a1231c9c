"""The world's own detectors: dense heads on a grid of cells, as in CenterNet (Zhou et al. 2019, arXiv 1904.07850).

Each cell says for every class whether an object's centre lies in it, and which tint, where in the cell and how large.
Two architectures: convolutions (for the checks) and a transformer over patches (for the simulated raters), so a
rater's mistakes are not the check's. Letters: B batch, G cells a side, O classes, T tints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TastemakerError
from ..object_rules import Box
from ..weights import device_of, fill, load_weights, save_weights, shape_of
from .grammar import COLORS, OBJECTS
from .scenes import SIZE, Scene

CELL = 4  # pixels
GRID = SIZE // CELL  # G
OUTPUTS = len(OBJECTS) + len(COLORS) + 1 + 3  # class logits, tints and "as drawn", offset x and y, log side


@dataclass(frozen=True)
class DetectorConfig:
    """kind: `convolutions` or `patches`."""

    kind: str = "convolutions"
    width: int = 64
    depth: int = 6


class Residual(nn.Module):
    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, dilation, dilation),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1),
        )  # fmt: skip

    def forward(self, h: Tensor) -> Tensor:
        return h + self.layers(h)


class ConvolutionDetector(nn.Module):
    """(B, 3, 64, 64) in [0, 1] -> (B, OUTPUTS, G, G)."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        width = config.width
        self.config = config
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, 1, 1), nn.SiLU(), nn.Conv2d(width // 2, width, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(width, width, 4, 2, 1),
        )  # fmt: skip
        self.body = nn.Sequential(*[Residual(width, 1 + k % 3) for k in range(config.depth)])
        logits = nn.Conv2d(width, OUTPUTS, 1)
        self.head = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), logits)
        _rare(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images * 2 - 1)))


class PatchDetector(nn.Module):
    """(B, 3, 64, 64) in [0, 1] -> (B, OUTPUTS, G, G), by attention over G x G patches."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        width = config.width
        self.config = config
        self.patchify = nn.Conv2d(3, width, 8, CELL, 2)
        self.place = nn.Parameter(torch.randn(1, GRID**2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, width // 24, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, OUTPUTS)
        _rare(self.head)

    def forward(self, images: Tensor) -> Tensor:
        h = self.patchify(images * 2 - 1).flatten(2).transpose(1, 2) + self.place  # (B, G * G, D)
        return self.head(self.blocks(h)).transpose(1, 2).unflatten(2, (GRID, GRID))


Network = ConvolutionDetector | PatchDetector
NETWORKS: dict[str, Callable[[DetectorConfig], Network]] = {
    "convolutions": ConvolutionDetector,
    "patches": PatchDetector,
}


def _rare(logits: nn.Linear | nn.Conv2d) -> None:
    """Begin with the belief that a cell holds nothing (RetinaNet, arXiv 1708.02002, section 4.1)."""
    with torch.no_grad():
        logits.get_parameter("bias")[: len(OBJECTS)] = -5.0


def targets_of(scenes: Sequence[Scene]) -> Tensor:
    """(B, 5, G, G): class (-1 none, -2 beside a centre: not judged), tint, offset x and y in the cell, log side."""
    out = torch.zeros(len(scenes), 5, GRID, GRID)
    out[:, 0] = -1
    for b, scene in enumerate(scenes):
        cells = [(item, int(item.x // CELL), int(item.y // CELL)) for item in scene.items]
        for _, i, j in cells:
            out[b, 0, max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2] = -2
        for item, i, j in cells:
            tint = COLORS.index(item.color) if item.color else len(COLORS)
            side = torch.log(torch.tensor(item.side / 24))
            out[b, :, j, i] = torch.tensor(
                [OBJECTS.index(item.name), tint, item.x / CELL - i, item.y / CELL - j, side]
            )
    return out


def split(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Class logits (B, O, G, G), tint logits (B, T, G, G), place (B, 3, G, G)."""
    return outputs.split([len(OBJECTS), len(COLORS) + 1, 3], 1)


def detection_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropies of presence and tint and an L1 of the place, (B,)."""
    logits, tints, place = split(outputs.float())
    kind = targets[:, 0]
    wanted = F.one_hot(kind.long().clamp_min(0), len(OBJECTS)).movedim(-1, 1) * (kind >= 0).float()[:, None]
    judged = (kind > -2).float()[:, None]
    presence = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * judged
    held = (kind >= 0).float()  # (B, G, G)
    tint = F.cross_entropy(tints, targets[:, 1].long(), reduction="none") * held
    where = (place - targets[:, 2:]).abs().sum(1) * held
    return presence.flatten(1).sum(1) + tint.flatten(1).sum(1) + where.flatten(1).sum(1)


class Detector:
    """Pictures in, boxes out. Frozen."""

    def __init__(self, network: Network, name: str = "detector", recipe=None):
        self.network, self.name, self.recipe = network, name, recipe or {}

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[dict[str, list[Box]]]:
        """(B, 3, H, W) in [0, 1] -> for each picture class -> boxes with score >= 0.1, in pixels of 64 x 64."""
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        logits, tints, place = split(self.network(images.to(device_of(self.network))).float().cpu())
        scores = logits.sigmoid()
        best, kind = scores.max(1)  # (B, G, G): one object a cell
        peaks = (best == F.max_pool2d(best[:, None], 3, 1, 1)[:, 0]) & (best >= 0.1)
        found: list[dict[str, list[Box]]] = [{} for _ in range(len(images))]
        for b, j, i in peaks.nonzero().tolist():
            tint = int(tints[b, :, j, i].argmax())
            x, y = (i + float(place[b, 0, j, i])) * CELL, (j + float(place[b, 1, j, i])) * CELL
            half = 12 * float(place[b, 2, j, i].clamp(-2, 1.2).exp())
            color = COLORS[tint] if tint < len(COLORS) else None
            box = Box(x - half, y - half, x + half, y + half, float(best[b, j, i]), color)
            found[b].setdefault(OBJECTS[int(kind[b, j, i])], []).append(box)
        return found

    def write(self, path: str | Path, half: bool = True) -> str:
        said = {"kind": "detector", "name": self.name, "network": asdict(self.network.config), "recipe": self.recipe}
        return save_weights(path, self.network.state_dict(), said, half)


def new_detector(config: DetectorConfig, name: str, seed: int) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Detector(NETWORKS[config.kind](config), name)


def load_detector(path: str | Path) -> Detector:
    tensors, said = load_weights(path)
    if said.get("kind") != "detector":
        raise TastemakerError(f"{path} holds a model of kind '{said.get('kind')}', expected 'detector'")
    config = shape_of(DetectorConfig, said, str(path), ("name", "recipe"))
    network = NETWORKS[config.kind](config)
    fill(network, tensors, str(path))
    return Detector(network.eval().requires_grad_(False), said["name"], said["recipe"])
