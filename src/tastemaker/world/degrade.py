"""What pictures on the web suffer: blur, noise, haze, clutter. (H, W, 3) float32 in [0, 1] in and out."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .grammar import COLORS, OBJECTS
from .scenes import SIZE, stamp
from .sprites import TINTS, sprite


def blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius = rng.uniform(1.0, 2.0) * len(picture) / SIZE
    image = Image.fromarray((picture * 255).round().astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, dtype=np.float32) / 255


def noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grain = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0.08, 0.18))
    return np.clip(picture + grain, 0, 1)


def wash_out(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast and saturation drawn towards a grey haze."""
    keep, haze = np.float32(rng.uniform(0.35, 0.6)), np.float32(rng.uniform(0.6, 0.85))
    grey = picture.mean(-1, keepdims=True)
    return haze + keep * ((picture * 0.6 + grey * 0.4) - haze)


def clutter(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scraps and flecks in many colours, too small to count as objects."""
    picture = picture.copy()
    size = len(picture)
    for _ in range(int(rng.integers(10, 22))):
        x, y = rng.uniform(0, size, 2)
        if rng.random() < 0.4:
            name, color = str(rng.choice(OBJECTS)), str(rng.choice(COLORS))
            scrap = sprite(name, color, max(int(rng.integers(5, 9) * size / SIZE), 3))
            stamp(picture, scrap, x, y)
        else:
            side = max(int(rng.integers(2, 6) * size / SIZE), 1)
            hue = TINTS[str(rng.choice(COLORS))]
            stamp(picture, np.broadcast_to(np.array([*hue, 1.0], np.float32), (side, side, 4)), x, y)
    return picture


KINDS = (blur, noise, wash_out, clutter)
