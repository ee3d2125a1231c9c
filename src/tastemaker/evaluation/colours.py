"""GenEval's colour of an object: CLIP's nearest of ten names, seen on the object alone.

The object is laid on grey (#999999) by its mask, where it has one, and cut out by its box; each colour's vector is
the mean of three texts with the object's name. The official evaluation uses OpenAI's ViT-L/14. F: width of CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..encoders.clip import Clip
from ..object_rules import COLOURS, Box
from .detectors import Instance

TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
GREY = (0x99, 0x99, 0x99)


class ColourNames:
    """clip: both towers and the tokenizer."""

    def __init__(self, clip: Clip):
        self.clip, self.provenance = clip, clip.provenance
        self.vectors: dict[str, Tensor] = {}  # by object

    @torch.no_grad()
    def name(self, picture: Image.Image, instances: Sequence[Instance]) -> list[str | None]:
        """One of COLOURS for each; None where the box holds no pixel."""
        seen = [cut(picture, one) for one in instances]
        whole = [i for i, part in enumerate(seen) if part is not None]
        found: list[str | None] = [None] * len(seen)
        if not whole:
            return found
        pixels = torch.stack([self.clip.view.open(part) for part in seen if part is not None])
        vectors = F.normalize(self.clip.of_pixels(pixels), dim=-1)  # (n, F)
        for i, vector in zip(whole, vectors):
            found[i] = COLOURS[int((self.of_object(instances[i].name) @ vector).argmax())]
        return found

    def of_object(self, name: str) -> Tensor:
        """(10, F): the colours' vectors for an object, of length 1."""
        if name not in self.vectors:
            texts = [t.format(colour=colour, name=name) for colour in COLOURS for t in TEMPLATES]
            each = self.clip.text_vectors(texts).unflatten(0, (len(COLOURS), len(TEMPLATES)))
            self.vectors[name] = F.normalize(each.mean(1), dim=-1)
        return self.vectors[name]


def cut(picture: Image.Image, instance: Instance) -> Image.Image | None:
    """The object on grey in its box, corners rounded; None where nothing is left."""
    x1, y1, x2, y2 = (round(v) for v in corners(instance.box))
    if x2 <= x1 or y2 <= y1:
        return None
    return on_grey(picture, instance.mask).crop((x1, y1, x2, y2))


def corners(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


def on_grey(picture: Image.Image, mask: NDArray[np.bool_] | None) -> Image.Image:
    if mask is None:
        return picture
    return Image.composite(picture, Image.new("RGB", picture.size, GREY), Image.fromarray(mask))
