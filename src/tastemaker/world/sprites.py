"""The art: Noto emoji, tinted and resized. Float32 (S, S, 4) in [0, 1], colour premultiplied."""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
from PIL import Image

TINTS = {
    "red": (0.90, 0.13, 0.14),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.86, 0.12),
    "green": (0.16, 0.66, 0.25),
    "blue": (0.13, 0.36, 0.92),
    "purple": (0.55, 0.20, 0.78),
    "pink": (1.00, 0.52, 0.74),
    "brown": (0.50, 0.30, 0.16),
}


@functools.cache
def tinted(name: str, color: str) -> np.ndarray:
    return tint(art(name), color)


@functools.cache
def art(name: str) -> np.ndarray:
    """(64, 64, 4) uint8, as drawn by its artists."""
    file = resources.files("tastemaker") / "assets" / "world" / "sprites" / f"{name}.png"
    with file.open("rb") as handle:
        return np.asarray(Image.open(handle).convert("RGBA"))


def tint(rgba: np.ndarray, color: str) -> np.ndarray:
    """The sprite in one hue: its light and shade kept, dark lines staying dark and highlights pale.

    Light is ranked within the sprite, so a white sprite takes the colour as fully as a dark one.
    """
    light = rgba[..., :3] @ np.array([0.299, 0.587, 0.114]) / 255  # (H, W)
    inside = rgba[..., 3] > 127
    low, high = np.quantile(light[inside], [0.05, 0.95])
    shade = np.clip((light - low) / max(high - low, 1e-3), 0, 1)[..., None]  # (H, W, 1)
    hue = np.array(TINTS[color])
    dark, pale = hue * 0.45, hue + (1 - hue) * 0.35
    rgb = np.where(shade < 0.5, dark + (hue - dark) * shade * 2, hue + (pale - hue) * (shade * 2 - 1))
    return np.concatenate([rgb * 255, rgba[..., 3:]], -1).astype(np.uint8)


@functools.lru_cache(maxsize=20_000)
def sprite(name: str, color: str | None, size: int) -> np.ndarray:
    """(size, size, 4) float32, premultiplied by alpha."""
    rgba = art(name) if color is None else tinted(name, color)
    small = Image.fromarray(rgba).resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(small, dtype=np.float32) / 255
    return np.concatenate([array[..., :3] * array[..., 3:], array[..., 3:]], -1)
