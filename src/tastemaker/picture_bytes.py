"""Pictures as bytes, as they are saved and shown, and back. Letters: B batch, H W."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def as_bytes(images: Tensor) -> Tensor:
    """(..., 3, H, W) in [0, 1] -> uint8 of the same shape: clamped, rounded half to even, a NaN becomes 0; without a
    gradient. Half precision is widened first, since it does not tell all 256 values apart."""
    wide = images.detach().to(torch.promote_types(images.dtype, torch.float32))
    return wide.clamp(0, 1).mul_(255).round_().nan_to_num_(0).byte()  # in place: one big copy, not four


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 of any shape -> float32 in [0, 1], multiples of 1/255."""
    return pixels.float() / 255


def as_array(images: Tensor) -> NDArray[np.uint8]:
    """(..., 3, H, W) in [0, 1] -> (..., H, W, 3) on the host, as Pillow and readers of pictures take it."""
    return as_bytes(images).movedim(-3, -1).cpu().contiguous().numpy()


def as_png(image: Tensor) -> bytes:
    """(3, H, W) in [0, 1] as a file."""
    file = io.BytesIO()
    Image.fromarray(as_array(image)).save(file, "PNG")
    return file.getvalue()
