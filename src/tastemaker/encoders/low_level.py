"""How a picture is drawn, without any learned weights: statistics of its luminance, colours, edges and frequencies.

Clean photographs have regular statistics, and damage shows as a departure from them (Mittal, Moorthy & Bovik 2012,
BRISQUE, IEEE Trans. Image Processing 21(12)): the luminance, locally standardised (MSCN), is nearly normal, and
products of neighbours have a known shape. Beside these moments: edges and noise at three scales, the shares of the
spectrum's bands, and how much colour there is (Hasler & Süsstrunk 2003). Scales are pixels: compare pictures of one
size.
Letters: B batch, H W.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..records import Provenance
from .protocol import check_images

SCALES = 3
BANDS = 8
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
TINY = 1e-8
PER_SCALE = 4 + 3 * len(NEIGHBOURS) + 3
COLOUR = 16


class LowLevel:
    """An `Encoder`; differentiable, no weights."""

    name = "low-level"
    dim = SCALES * PER_SCALE + BANDS + COLOUR
    provenance = Provenance("low-level", preprocessing="1: pictures at their own size, at least 32 pixels a side")

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, dim)."""
        images = check_images(images)
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        grey = luminance(images)[:, None]  # (B, 1, H, W)
        parts = [colour(images), spectrum(grey[:, 0])]
        for _ in range(SCALES):
            parts += [natural(grey), edges(grey)]
            grey = F.avg_pool2d(grey, 2)
        return torch.cat(parts, 1)


def luminance(images: Tensor) -> Tensor:
    """(B, H, W) in [0, 1], ITU-R BT.601."""
    return torch.einsum("bchw,c->bhw", images, images.new_tensor((0.299, 0.587, 0.114)))


def window(like: Tensor, sigma: float = 7 / 6, side: int = 7) -> Tensor:
    """(1, 1, side, side): BRISQUE's Gaussian."""
    line = torch.arange(side, dtype=like.dtype, device=like.device) - side // 2
    line = torch.exp(-(line**2) / (2 * sigma**2))
    line = line / line.sum()
    return (line[:, None] * line)[None, None]


def mscn(grey: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 1, H, W): less the local mean, over the local deviation + 1/255 (BRISQUE, Eqs. 1-3)."""
    kernel = window(grey)
    smooth = lambda x: F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), kernel)  # noqa: E731
    mean = smooth(grey)
    deviation = (smooth(grey**2) - mean**2).clamp_min(0).add(TINY).sqrt()
    return (grey - mean) / (deviation + 1 / 255)


def natural(grey: Tensor) -> Tensor:
    """(B, 16): size, spread, peakedness and skew of MSCN; of each neighbour product the mean and both sides' size."""
    x = mscn(grey)
    size, square = x.abs().mean((1, 2, 3)), x.pow(2).mean((1, 2, 3))
    shape = size**2 / (square + TINY)  # tells the generalised normal's exponent
    skew = x.pow(3).mean((1, 2, 3)) / (square + TINY) ** 1.5
    parts = [size, square, shape, skew]
    for down, right in NEIGHBOURS:
        product = x * torch.roll(x, (down, right), (2, 3))
        parts += [
            product.mean((1, 2, 3)),
            *(F.relu(s * product).pow(2).mean((1, 2, 3)).add(TINY).sqrt() for s in (1, -1)),
        ]
    return torch.stack(parts, 1)


def edges(grey: Tensor) -> Tensor:
    """(B, 3), logarithms: mean gradient, its spread, and the mean absolute second difference (edges and noise)."""
    across, down = grey[..., :-1, 1:] - grey[..., :-1, :-1], grey[..., 1:, :-1] - grey[..., :-1, :-1]
    length = (across**2 + down**2 + TINY).sqrt()
    bend = grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:] + grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1]
    bend = (bend - 4 * grey[..., 1:-1, 1:-1]).abs()
    found = [length.mean((1, 2, 3)), length.std((1, 2, 3)), bend.mean((1, 2, 3))]
    return torch.stack(found, 1).clamp_min(1e-5).log()


def spectrum(grey: Tensor) -> Tensor:
    """(B, BANDS), logarithms: the mean power in rings of the spectrum, from coarse to fine, over the total."""
    height, width = grey.shape[1:]
    lean = torch.hann_window(height, device=grey.device)[:, None] * torch.hann_window(width, device=grey.device)
    power = torch.fft.rfft2((grey - grey.mean((1, 2), keepdim=True)) * lean).abs() ** 2
    down = torch.fft.fftfreq(height, device=grey.device)[:, None]
    across = torch.fft.rfftfreq(width, device=grey.device)
    ring = ((down**2 + across**2).sqrt() * 2 * BANDS).long().clamp_max(BANDS - 1)  # the finest holds the corners
    share = torch.stack([power[:, ring == k].mean(1) for k in range(BANDS)], 1)
    return (share / (share.sum(1, keepdim=True) + TINY)).clamp_min(1e-9).log()


def colour(images: Tensor) -> Tensor:
    """(B, 16): mean and spread of R, G, B, of luminance, of saturation and of two opponent axes; colourfulness, and
    the shares of pixels near black and white."""
    red, green, blue = images.unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], 1)
    saturation = images.amax(1, True) - images.amin(1, True)
    grey = luminance(images)[:, None]
    planes = torch.cat([images, grey, saturation, opponents], 1).flatten(2)  # (B, 7, H W)
    mean, spread = planes.mean(2), (planes.var(2, correction=0) + TINY).sqrt()
    colourful = (spread[:, 5:] ** 2).sum(1).sqrt() + 0.3 * ((mean[:, 5:] ** 2).sum(1) + TINY).sqrt()
    ends = torch.sigmoid((grey - 0.95) * 60).mean((1, 2, 3)) + torch.sigmoid((0.05 - grey) * 60).mean((1, 2, 3))
    return torch.cat([mean, spread, torch.stack([colourful, ends], 1)], 1)
