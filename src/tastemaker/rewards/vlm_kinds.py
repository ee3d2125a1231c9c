"""Two kinds of vision-language models: how each reads a picture, and where its tokens stand.

| kind | picture | positions |
|---|---|---|
| LLaVA-OneVision (arXiv 2408.03326) | the whole and crops of it (anyres.py), or one square view | 1, 2, 3 ... |
| Qwen2-VL (arXiv 2409.12191) | its own shape, in patches of which merge x merge are a token | M-RoPE: time, row,
column |

A folder's `preprocessor_config.json` gives sizes, means and deviations.
Letters: B batch, n tokens of a picture, D width, L tokens of a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError
from . import anyres
from .anyres import resized

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def normalised(images: Tensor, said: Mapping[str, Any], mean: tuple, std: tuple) -> Tensor:
    """(B, 3, H, W) in [0, 1] less the mean, over the deviation."""
    mean, std = said.get("image_mean") or mean, said.get("image_std") or std
    return (images - images.new_tensor(mean).reshape(3, 1, 1)) / images.new_tensor(std).reshape(3, 1, 1)


class LlavaOnevision:
    """`llava_onevision`. config.json's `vision_aspect_ratio` says how it looks: `anyres_max_9`, as released, at the
    whole picture and its crops; `pad`, as the verifier of arXiv 2501.13926 was used, at one padded square."""

    picture = "<image>\n"

    def __init__(self, config: Any, said: Mapping[str, Any]):
        self.side, self.said = config.vision_config.image_size, said
        self.shapes = [(height, width) for height, width in config.image_grid_pinpoints]
        self.most = most_views(config.vision_aspect_ratio)
        self.token = config.image_token_id
        self.layer, self.strategy = config.vision_feature_layer, config.vision_feature_select_strategy

    def pixels(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, 3, S, S)."""
        if self.most == 0:
            return normalised(self.square(images), self.said, HALF, HALF)[:, None]
        return normalised(anyres.views(images, self.side, self.shapes), self.said, HALF, HALF)

    def square(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, S, S), padded to a square in the mean colour."""
        height, width = images.shape[-2:]
        side = max(height, width)
        mean = images.new_tensor(self.said.get("image_mean") or HALF).reshape(3, 1, 1)
        square = mean.expand(len(images), 3, side, side).clone()
        top, left = (side - height) // 2, (side - width) // 2
        square[:, :, top : top + height, left : left + width] = images
        return resized(square, self.side, self.side)

    def features(self, model: Any, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, n, D)."""
        pixels = self.pixels(images)
        seen = model.vision_tower(pixels.flatten(0, 1), output_hidden_states=True).hidden_states
        layers = [self.layer] if isinstance(self.layer, int) else self.layer
        states = torch.cat([seen[k] for k in layers], -1)
        states = model.multi_modal_projector(states[:, 1:] if self.strategy == "default" else states)
        states, newline = states.unflatten(0, pixels.shape[:2]), model.image_newline
        if self.most == 0:
            return torch.cat([states[:, 0], newline.expand(len(states), 1, -1)], 1)
        height, width = images.shape[-2:]
        return anyres.packed(states, (height, width), self.side, self.shapes, newline, self.most)

    def positions(self, before: int, images: Tensor, tokens: int, after: int) -> Tensor:
        """(B, L) of `before` words, the picture's `tokens` and `after` words."""
        return torch.arange(before + tokens + after).expand(len(images), -1)


def most_views(ratio: str) -> int:
    """The bound K of `anyres_max_K`; 0 for `pad`. Raises TastemakerError for another way to look."""
    bound = ratio.removeprefix("anyres_max_")
    if ratio == "pad":
        return 0
    if ratio == bound or not bound.isdigit():
        raise TastemakerError(f"config.json says vision_aspect_ratio '{ratio}'; expected anyres_max_9, or pad")
    return int(bound)


class Qwen2Vl:
    """`qwen2_vl`: a picture of any shape."""

    picture = "<|vision_start|><|image_pad|><|vision_end|>"

    def __init__(self, config: Any, said: Mapping[str, Any]):
        vision, size = config.vision_config, said.get("size") or {}
        self.patch, self.merge, self.frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        self.token, self.said = config.image_token_id, said
        self.least = said.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge") or 56 * 56
        self.most = said.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Pixels after resizing: multiples of patch x merge, between the least and the most."""
        unit = self.patch * self.merge
        sides = [max(unit, round(s / unit) * unit) for s in (height, width)]
        if sides[0] * sides[1] > self.most:
            scale = math.sqrt(height * width / self.most)
            sides = [max(unit, math.floor(s / scale / unit) * unit) for s in (height, width)]
        elif sides[0] * sides[1] < self.least:
            scale = math.sqrt(self.least / (height * width))
            sides = [math.ceil(s * scale / unit) * unit for s in (height, width)]
        return sides[0], sides[1]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Patches down and across."""
        height, width = self.shape(*images.shape[-2:])
        return height // self.patch, width // self.patch

    def pixels(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B gh gw, 3 frames patch patch): patches, those that become one token side by side."""
        (rows, columns), p, m = self.grid(images), self.patch, self.merge
        x = normalised(resized(images, rows * p, columns * p), self.said, CLIP_MEAN, CLIP_STD)
        x = x.reshape(len(x), 3, rows // m, m, p, columns // m, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
        x = x.reshape(len(images) * rows * columns, 3, 1, p, p)
        return x.expand(-1, -1, self.frames, -1, -1).flatten(1)  # a still picture fills all frames

    def features(self, model: Any, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, n, D)."""
        grid = torch.tensor([[1, *self.grid(images)]] * len(images), device=images.device)
        seen = model.visual(self.pixels(images), grid_thw=grid)
        return getattr(seen, "pooler_output", seen).unflatten(0, (len(images), -1))

    def positions(self, before: int, images: Tensor, tokens: int, after: int) -> Tensor:
        """(3, B, L): words count on in all three; a picture's tokens share the time and differ in row and column."""
        rows, columns = (side // self.merge for side in self.grid(images))
        words = torch.arange(before).expand(3, -1)
        row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
        inside = torch.stack([torch.zeros_like(row), row, column]) + before
        behind = torch.arange(after).expand(3, -1) + before + max(rows, columns)
        return torch.cat([words, inside, behind], 1)[:, None].expand(-1, len(images), -1)


KINDS = {"llava_onevision": LlavaOnevision, "qwen2_vl": Qwen2Vl}
