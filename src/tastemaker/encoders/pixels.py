"""How a public model looks at a picture: resize, crop or pad, to the pixel. Models of one view can share its pixels.

Most released scorers were trained on what Pillow makes of 8-bit pictures, so a tensor in [0, 1] is first rounded to
8 bits (a picture scores the same before and after it is saved as PNG), then resampled with Pillow's own arithmetic:
bicubic weights (a = -1/2) as integers of 22 fractional bits, each pass rounded and clipped to 8 bits. Without
a gradient and on the host Pillow does the work; otherwise two matrix products give the same bytes, and the gradient
is that of the resampling without its rounding. Outside [0, 1] pixels are clipped and have no gradient.
Letters: B batch, H W, S the side that the model wants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..picture_bytes import as_bytes
from .protocol import check_images

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
BITS = 22  # fractional bits of Pillow's weights for 8-bit pictures


class View(Protocol):
    """Equal views make equal pixels, so rewards of one view can share them."""

    def __call__(self, images: Tensor) -> Tensor: ...  # (B, 3, H, W) in [0, 1] -> (B, 3, S, S), about [0, 1]
    def open(self, picture: Image.Image) -> Tensor: ...  # a picture file of any mode, as the release treats it


def half_even(spare: int) -> int:
    """Where torchvision's crop begins: half of the spare pixels, rounded half to even."""
    return round(spare / 2)


def half_down(spare: int) -> int:
    """Where the crop of transformers begins."""
    return spare // 2


@dataclass(frozen=True)
class Crop:
    """Shorter side to `size`, the longer int(size * long / short), then the middle square."""

    size: int = 224
    begin: Callable[[int], int] = half_even
    rgb_first: bool = False  # of a file: RGBA and palettes become RGB before the resize, else after the crop

    def __str__(self) -> str:
        return f"shorter side to {self.size} (Pillow bicubic), middle square ({self.begin.__name__})"

    def __call__(self, images: Tensor) -> Tensor:
        height, width = self.resized(*images.shape[-2:])
        top, left = self.begin(height - self.size), self.begin(width - self.size)
        return resample(images, height, width)[..., top : top + self.size, left : left + self.size]

    def open(self, picture: Image.Image) -> Tensor:
        picture = picture.convert("RGB") if self.rgb_first else picture
        height, width = self.resized(picture.height, picture.width)
        top, left = self.begin(height - self.size), self.begin(width - self.size)
        sized = picture.resize((width, height), Image.Resampling.BICUBIC)
        return as_tensor(sized.crop((left, top, left + self.size, top + self.size)))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        short, long = sorted((height, width))
        longer = int(self.size * long / short)
        return (longer, self.size) if height > width else (self.size, longer)


@dataclass(frozen=True)
class Squash:
    """The whole picture to `size` x `size`, whatever its shape."""

    size: int = 384

    def __str__(self) -> str:
        return f"squeezed to {self.size} x {self.size} (Pillow bicubic)"

    def __call__(self, images: Tensor) -> Tensor:
        return resample(images, self.size, self.size)

    def open(self, picture: Image.Image) -> Tensor:
        return as_tensor(picture.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Pad:
    """Longest side to `size`, in floating point and not clipped (values may leave [0, 1]), then black on both sides.

    Sizes are rounded half to even; where a side needs an odd number of pixels, the far end gets one more.
    Antialiased, as torchvision does by default since 0.17; older ones did not.
    """

    size: int = 224

    def __str__(self) -> str:
        return f"longest side to {self.size} (float bicubic, antialiased), black around it"

    def __call__(self, images: Tensor) -> Tensor:
        images = check_images(images).float().clamp(0, 1)
        height, width = images.shape[-2:]
        scale = self.size / max(height, width)
        if scale != 1:
            height, width = round(height * scale), round(width * scale)
            images = F.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return F.pad(images, (left, self.size - width - left, top, self.size - height - top))

    def open(self, picture: Image.Image) -> Tensor:
        return self(as_tensor(picture)[None])[0]


CLIP_CROP = Crop(begin=half_even)  # OpenAI's CLIP and ImageReward
TRANSFORMERS_CROP = Crop(begin=half_down, rgb_first=True)  # CLIPImageProcessor with Pillow


def normalise(pixels: Tensor, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD) -> Tensor:
    """(B, 3, S, S): channel by channel minus the mean, over the standard deviation."""
    return (pixels - pixels.new_tensor(mean).view(3, 1, 1)) / pixels.new_tensor(std).view(3, 1, 1)


def resample(images: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, height, width) float32, multiples of 1/255: what Pillow's bicubic resize gives
    of the 8-bit picture. A picture with a NaN becomes NaN. Raises TastemakerError where it is no batch of these."""
    if check_images(images).device.type == "cpu" and not (images.requires_grad and torch.is_grad_enabled()):
        return by_pillow(images, height, width)
    pixels = eight_bit(images).double()
    for size, dim in ((width, 3), (height, 2)):  # Pillow resizes rows first
        pixels = one_pass(pixels, size, dim)
    return pixels.float() / 255


def eight_bit(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> whole numbers from 0 to 255, float32, rounded as a picture is saved."""
    pixels = images.float().clamp(0, 1) * 255
    return Straight.apply(pixels, pixels.detach().round())


def by_pillow(images: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, height, width) in [0, 1]; one picture at a time, near the processor."""
    out = torch.empty(len(images), 3, height, width)
    for image, place in zip(images.detach(), out):
        if image.sum().isnan() and image.isnan().any():  # the sum is quick, but infinities may make it NaN too
            place.fill_(float("nan"))
        else:
            bands = [Image.fromarray(band) for band in as_bytes(image.float()).numpy()]
            place.copy_(as_tensor(Image.merge("RGB", bands).resize((width, height), Image.Resampling.BICUBIC)))
    return out


def one_pass(pixels: Tensor, size: int, dim: int) -> Tensor:
    """(B, 3, H, W) float64 whole numbers from 0 to 255, one side to `size`: exact, since sums stay below 2^53."""
    source = pixels.shape[dim]
    if source == size:
        return pixels
    weights = torch.from_numpy(bicubic_weights(source, size)).to(pixels.device)  # (size, source)
    sums = (pixels @ weights.T if dim == 3 else weights @ pixels) / 2**BITS
    return Straight.apply(sums, (sums.detach() + 0.5).floor().clamp(0, 255))


class Straight(torch.autograd.Function):
    """The second tensor's values with the first one's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None

    @staticmethod
    def jvp(ctx: Any, moved: Tensor, _: None) -> Tensor:  # type: ignore[override]
        return moved.clone()


@lru_cache(maxsize=64)
def bicubic_weights(source: int, size: int) -> np.ndarray:
    """(size, source) float64: Pillow's antialiased bicubic weights times 2^22, whole numbers."""
    scale = source / size
    stretch = max(scale, 1.0)
    weights = np.zeros((size, source))
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), source)
        row = bicubic((np.arange(first, last) - centre + 0.5) / stretch)
        row = row / row.sum() * 2**BITS
        weights[i, first:last] = np.trunc(row + np.where(row < 0, -0.5, 0.5))
    return weights


def bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2 (IEEE Trans. ASSP 29(6), 1981)."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def as_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) float32 in [0, 1]; anything but RGB is converted by Pillow, which drops transparency."""
    # by NumPy: a thread that reads files must not start a team of its own, as torch would
    pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)
