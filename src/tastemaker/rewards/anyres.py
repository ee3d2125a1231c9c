"""Views of a picture of any shape for a vision tower of one square size, as LLaVA-OneVision takes them (Li et al.
2024, arXiv 2408.03326, "higher anyres").

The whole picture in one view, and beside it crops: the picture is scaled into the best of the allowed shapes, the
rest of which is black, and cut into squares. The features of the crops are put together again, what stands for the
black is cut away, and rows above a bound are made fewer. Letters: B batch, K views, S side of a view in pixels,
n = s s features of a view, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # height, width


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, height, width), by torch's antialiased bicubic."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def best_shape(size: Size, shapes: Sequence[Size]) -> Size:
    """Of the shapes, the one in which most of the picture's own pixels survive, and of those the one with the least
    left over; the first of equals."""

    def worth(shape: Size) -> tuple[int, int]:
        scale = min(shape[1] / size[1], shape[0] / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return kept, kept - shape[0] * shape[1]

    height, width = max(shapes, key=worth)
    return height, width


def views(images: Tensor, side: int, shapes: Sequence[Size]) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, K, 3, S, S): the whole, and the crops row by row."""
    height, width = images.shape[-2:]
    tall, wide = best_shape((height, width), shapes)
    across, down = wide / width, tall / height
    if across < down:
        inner = (min(math.ceil(height * across), tall), wide)
    else:
        inner = (tall, min(math.ceil(width * down), wide))
    top, left = (tall - inner[0]) // 2, (wide - inner[1]) // 2
    canvas = images.new_zeros(len(images), 3, tall, wide)
    canvas[:, :, top : top + inner[0], left : left + inner[1]] = resized(images, *inner)
    crops = canvas.unfold(2, side, side).unfold(3, side, side)  # (B, 3, rows, columns, S, S)
    return torch.cat([resized(images, side, side)[:, None], crops.flatten(2, 3).transpose(1, 2)], 1)


def packed(features: Tensor, size: Size, side: int, shapes: Sequence[Size], newline: Tensor, most: int) -> Tensor:
    """(B, K, n, D) -> (B, n', D): the features of the whole, then those of the crops in reading order, each row
    closed by the new line (D,). size: the picture's; most: so many views' worth of features at most."""
    s = math.isqrt(features.shape[2])
    tall, wide = best_shape(size, shapes)
    grid = features[:, 1:].unflatten(2, (s, s)).unflatten(1, (tall // side, wide // side))
    grid = grid.permute(0, 5, 1, 3, 2, 4).flatten(2, 3).flatten(3, 4)  # (B, D, rows s, columns s)
    grid = fewer(without_black(grid, size), most * s * s)
    lines = newline.to(grid)[:, None, None].expand(len(grid), -1, grid.shape[2], 1)
    return torch.cat([features[:, 0], torch.cat([grid, lines], 3).flatten(2).transpose(1, 2)], 1)


def without_black(grid: Tensor, size: Size) -> Tensor:
    """(B, D, h, w) less the rows or columns that stand for what was added around a picture of this size."""
    (height, width), (rows, columns) = size, grid.shape[2:]
    if width / height > columns / rows:
        gap = (rows - int(round(height * (columns / width), 7))) // 2
        return grid[:, :, gap : rows - gap]
    gap = (columns - int(round(width * (rows / height), 7))) // 2
    return grid[:, :, :, gap : columns - gap]


def fewer(grid: Tensor, most: int) -> Tensor:
    """(B, D, h, w) shrunk to about `most` places where it has over 1.21 times as many."""
    rows, columns = grid.shape[2:]
    ratio = math.sqrt(rows * columns / most)
    if ratio <= 1.1:
        return grid
    return F.interpolate(grid, (int(rows // ratio), int(columns // ratio)), mode="bilinear")
