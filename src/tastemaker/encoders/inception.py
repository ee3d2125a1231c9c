"""The Inception-v3 of the Fréchet Inception Distance (Heusel et al. 2017, arXiv 1706.08500), 2048 pooled features.

Architecture: Szegedy et al. 2015 (arXiv 1512.00567) as TensorFlow's graph of 2015-12-05 has it, in the key layout in
which PyTorch ports keep it (pt_inception-2015-12-05, torch-fidelity's file). It differs from torchvision's: average
pools do not count the padding, the last block pools by maximum, and there are 1008 classes. Pixels are resized as
that graph does: bilinear, without antialiasing, pixel i at i H / 299.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..records import Provenance
from ..weights import device_of, file_hash
from .official import assemble, read_tensors, weight_file
from .pixels import eight_bit

SIDE = 299  # pixels
NAMES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth", "model.safetensors")
average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=2)


class Norm(nn.Module):
    """Batch normalisation with fixed figures, eps 1e-3."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-3)


class Conv(nn.Module):
    """Convolution, norm, ReLU. kernel: (rows, columns); a stride of 1 keeps the size unless `pad` is False."""

    def __init__(self, inputs: int, outputs: int, kernel=(1, 1), stride: int = 1, pad: bool = True):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad and stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class MixedA(nn.Module):
    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = Conv(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, 48), Conv(48, 64, (5, 5))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64), Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = Conv(96, 96, (3, 3))
        self.branch_pool = Conv(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(average(x))], 1
        )


class MixedB(nn.Module):
    """Halves the side."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, (3, 3), 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64), Conv(64, 96, (3, 3))
        self.branch3x3dbl_3 = Conv(96, 96, (3, 3), 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, maximum(x)], 1)


class MixedC(nn.Module):
    def __init__(self, inner: int):
        super().__init__()
        self.branch1x1 = Conv(768, 192)
        self.branch7x7_1, self.branch7x7_2 = Conv(768, inner), Conv(inner, inner, (1, 7))
        self.branch7x7_3 = Conv(inner, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(768, inner), Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(inner, inner, (1, 7)), Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Conv(inner, 192, (1, 7))
        self.branch_pool = Conv(768, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average(x))], 1)


class MixedD(nn.Module):
    """Halves the side."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(768, 192), Conv(192, 320, (3, 3), 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(768, 192), Conv(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1)), Conv(192, 192, (3, 3), 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, maximum(x)], 1)


class MixedE(nn.Module):
    def __init__(self, inputs: int, pool):
        super().__init__()
        self.pool = pool
        self.branch1x1, self.branch3x3_1 = Conv(inputs, 320), Conv(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 448), Conv(448, 384, (3, 3))
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, (1, 3)), Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        wide = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        wide += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *wide, self.branch_pool(self.pool(x))], 1)


class InceptionNetwork(nn.Module):
    """Pixels (B, 3, 299, 299) in [-1, 1] -> (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Conv(32, 32, (3, 3), pad=False), Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80), Conv(80, 192, (3, 3), pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(MixedC, (128, 160, 160, 192))
        self.Mixed_7a, self.Mixed_7b = MixedD(), MixedE(1280, average)
        self.Mixed_7c = MixedE(2048, partial(F.max_pool2d, kernel_size=3, stride=1, padding=1))
        self.fc = nn.Linear(2048, 1008)  # of the file; not used by the features

    def forward(self, x: Tensor) -> Tensor:
        x = maximum(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = maximum(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


class Inception:
    """An `Encoder` of the 2048 pooled features."""

    name, dim = "inception", 2048

    def __init__(self, network: InceptionNetwork, weight_hash: str = ""):
        self.network = network
        self.provenance = Provenance(
            "Inception-v3 of FID",
            weight_hash,
            f"8 bits, whole picture to {SIDE} x {SIDE} (TensorFlow 1's bilinear, not antialiased), (x - 128) / 128",
        )

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 2048) float32, >= 0."""
        device = device_of(self.network)
        with torch.autocast(device.type, enabled=False):
            return self.network((tensorflow_bilinear(eight_bit(images.to(device)), SIDE) - 128) / 128)


def tensorflow_bilinear(pixels: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side): output i lies at i H / side, between two pixels; the last is repeated."""
    rows, columns = (_weights(size, side).to(pixels) for size in pixels.shape[-2:])
    return rows @ pixels @ columns.T


@lru_cache(maxsize=16)
def _weights(source: int, side: int) -> Tensor:
    """(side, source), two a row."""
    place = torch.arange(side, dtype=torch.float64) * source / side
    low = place.floor().long()
    high, far = (low + 1).clamp_max(source - 1), place - low
    weights = torch.zeros(side, source, dtype=torch.float64)
    weights.scatter_add_(1, low[:, None], (1 - far)[:, None])
    return weights.scatter_add_(1, high[:, None], far[:, None])


def load_inception(path: str | Path) -> Inception:
    """The weight file, or a folder with it. Raises TastemakerError where it is missing or a key does not fit."""
    file = weight_file(path, NAMES, "FID's Inception-v3")
    tensors = {k: v for k, v in read_tensors(file).items() if not k.endswith("num_batches_tracked")}
    return Inception(assemble(InceptionNetwork, tensors, str(file)), file_hash(file))
