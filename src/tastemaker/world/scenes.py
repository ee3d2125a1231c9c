"""From a spec to a picture: where each object stands, and the drawing of it. A scene is drawn in under 1 ms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..object_rules import Box, relations
from ..randomness import stream
from .grammar import COLORS
from .sprites import sprite

SIZE = 64  # the side that placements are thought in; other sides are drawn to scale
LATTICE = 8  # pixels between places: few enough that a small generator soon learns where things stand
SIDES = {1: (32, 40), 2: (24, 32), 3: (24,), 4: (24,)}  # pixels, by how many objects there are


@dataclass(frozen=True)
class Item:
    """One object: its centre and side in pixels of a 64 x 64 scene. color None: as its artists drew it."""

    name: str
    color: str | None
    x: float
    y: float
    side: float

    @property
    def box(self) -> Box:
        h = self.side / 2
        return Box(self.x - h, self.y - h, self.x + h, self.y + h, 1.0, self.color)


@dataclass(frozen=True)
class Scene:
    items: tuple[Item, ...]
    background: tuple[tuple[float, ...], tuple[float, ...], float]  # two colours in [0, 1], angle


def compose(spec: Mapping[str, Any], seed: int) -> Scene:
    """A scene in which the spec holds. Objects keep apart; those with no colour asked are mostly left as drawn."""
    rng = stream(seed, purpose="scene")
    wanted = [(c["class"], c.get("color")) for c in spec["include"] for _ in range(c["count"])]
    relation = next((c["position"][0] for c in spec["include"] if "position" in c), None)
    for _ in range(40):
        for row in _places(rng, len(wanted)):
            items = tuple(Item(name, color, *place) for (name, color), place in zip(wanted, row.tolist()))
            if relation is None or _related(items[1], items[0], relation):
                return Scene(tuple(_dress(rng, i) for i in items), _background(rng))
    raise AssertionError(f"no room for {spec}")


def _places(rng: np.random.Generator, count: int, tries: int = 64) -> np.ndarray:
    """(tries at most, count, 3): x, y and side of objects that do not overlap."""
    side = rng.choice(SIDES[count], (tries, count))
    x, y = (side / 2 + LATTICE * rng.integers(0, (SIZE - side) // LATTICE + 1) for _ in range(2))
    i, j = np.triu_indices(count, 1)
    offset = np.maximum(abs(x[:, i] - x[:, j]), abs(y[:, i] - y[:, j]))
    apart = (offset >= (side[:, i] + side[:, j]) / 2).all(1)
    return np.stack([x, y, side], -1)[apart]


def draw(scene: Scene, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) float32 in [0, 1]."""
    picture = _gradient(scene.background, size)
    for item in scene.items:
        side = max(int(round(item.side * size / SIZE)), 2)
        stamp(picture, sprite(item.name, item.color, side), item.x * size / SIZE, item.y * size / SIZE)
    return np.clip(picture, 0, 1, out=picture)


def stamp(picture: np.ndarray, rgba: np.ndarray, x: float, y: float) -> None:
    """Lay a premultiplied sprite over the picture, its centre at (x, y); what falls outside is cut."""
    side = len(rgba)
    left, top = round(x - side / 2), round(y - side / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, picture.shape[1]), min(top + side, picture.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    part = rgba[y0 - top : y1 - top, x0 - left : x1 - left]
    under = picture[y0:y1, x0:x1]
    under *= 1 - part[..., 3:]
    under += part[..., :3]


def _related(a: Item, b: Item, relation: str) -> bool:
    """The relation holds with room to spare, and no other does."""
    return relations(a.box, b.box, margin=0.14) == {relation} == relations(a.box, b.box, margin=0.08)


def _dress(rng: np.random.Generator, item: Item) -> Item:
    any_color = str(rng.choice(COLORS)) if rng.random() < 0.15 else None
    return replace(item, color=item.color or any_color)


def _background(rng: np.random.Generator):
    ground = rng.uniform(0.78, 1.0, 3)
    return (
        tuple(map(float, ground)),
        tuple(map(float, np.clip(ground + rng.normal(0, 0.08, 3), 0.7, 1))),
        float(rng.uniform(0, 2 * np.pi)),
    )


def _gradient(background, size: int) -> np.ndarray:
    first, second, angle = background
    line = np.linspace(-1, 1, size, dtype=np.float32)
    ramp = (line[None] * np.cos(angle) + line[:, None] * np.sin(angle)) * 0.35 + 0.5  # (H, W)
    first, second = np.float32(first), np.float32(second)
    return first + (second - first) * ramp[..., None].astype(np.float32)
