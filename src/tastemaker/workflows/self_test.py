"""Is the detector alive? It has to find something in drawings of things that it knows, or in reference pictures.

A detector whose weights do not fit its code scores every prompt as wrong without an error; that is caught here,
before anything is measured.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import TastemakerError
from ..evaluation.detections import Finder
from ..records import Prompt
from ..world.grammar import OBJECTS
from ..world.sprites import sprite
from .score import group_by_size, list_jobs

SIDE = 448  # pixels of a drawing
PART = 336  # of it that the thing takes


def self_test(finder: Finder, threshold: float, reference: Path | None = None) -> str:
    """What was found, as a sentence. reference: a folder of pictures in place of the embedded drawings.

    Raises TastemakerError where no picture has a box above the threshold, or the finder knows none of the drawings.
    """
    if reference is not None:
        return _on_pictures(finder, threshold, reference)
    known = [name for name in OBJECTS if name in finder.classes]
    if not known:
        raise TastemakerError(
            f"{finder.name} knows none of the embedded drawings ({', '.join(OBJECTS)}), so it cannot be tested on "
            "them; give pictures in which it must find something: --reference FOLDER"
        )
    seen = [_above(finder, drawing(name), threshold) for name in known]
    if not any(seen):
        raise TastemakerError(_dead(finder, threshold, f"drawings ({', '.join(known)})", len(known)))
    right = sum(name in found for name, found in zip(known, seen))
    return f"self-test: {right} of {len(known)} drawings named right, something found in {sum(map(bool, seen))}"


def _on_pictures(finder: Finder, threshold: float, folder: Path) -> str:
    errors: dict[int, str] = {}
    pictures = [image for _, images in group_by_size(list_jobs(folder), 8, {}, errors) for image in images]
    seen = [_above(finder, image, threshold) for image in pictures]
    if not any(seen):
        raise TastemakerError(_dead(finder, threshold, f"pictures of {folder}", len(pictures)))
    return f"self-test: something found in {sum(map(bool, seen))} of {len(pictures)} reference pictures"


def _above(finder: Finder, image: Tensor, threshold: float) -> set[str]:
    """Names of what is found in (3, H, W) above the threshold."""
    (found,) = finder.find(image[None], [Prompt("")])
    if isinstance(found, str):
        raise TastemakerError(f"{finder.name} failed its self-test: {found}")
    return {name for name, boxes in found.items() if any(box.score > threshold for box in boxes)}


def _dead(finder: Finder, threshold: float, where: str, count: int) -> str:
    return (
        f"{finder.name} finds nothing above {threshold} in any of {count} {where}; its scores would all be 0. Check "
        "that the weights belong to this architecture and the preparation to the weights, or give photographs of "
        "things that it knows: --reference FOLDER"
    )


def drawing(name: str) -> Tensor:
    """(3, SIDE, SIDE) in [0, 1]: the thing in the middle of a pale ground."""
    drawn = torch.from_numpy(sprite(name, None, PART)).permute(2, 0, 1)  # colour times alpha, and alpha
    canvas = torch.full((3, SIDE, SIDE), 0.94)
    begin = (SIDE - PART) // 2
    inside = (slice(None), slice(begin, begin + PART), slice(begin, begin + PART))
    canvas[inside] = canvas[inside] * (1 - drawn[3:]) + drawn[:3]
    return canvas.clamp(0, 1)
