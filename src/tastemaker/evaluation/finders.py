"""A detector and a namer of colours as one: pictures in, boxes by class out, with colours where prompts ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor

from ..picture_bytes import as_array
from ..records import Prompt
from .colours import ColourNames
from .detections import Boxes
from .detectors import FolderDetector, Instance


class ObjectFinder:
    """See `detections.Finder`. colours: None where no prompt asks for any."""

    def __init__(self, detector: FolderDetector, colours: ColourNames | None = None):
        self.detector, self.namer = detector, colours
        self.name, self.classes, self.floor = detector.provenance.model, detector.classes, detector.floor
        self.colours = colours.provenance.model if colours else ""
        parts = [detector.provenance, *([colours.provenance] if colours else [])]
        self.weights = {part.model: part.weight_hash for part in parts}

    def find(self, images: Tensor, prompts: Sequence[Prompt]) -> list[Boxes | str]:
        """(B, 3, H, W) in [0, 1] -> boxes by class, or why there are none. Colours are named of every object of a
        class of which the prompt wants one, whatever its score, so that other thresholds find them named too."""
        pictures = [Image.fromarray(array) for array in as_array(images)]
        found = self.detector.instances(images)
        return [
            seen if isinstance(seen, str) else self._boxes(picture, seen, coloured(prompt))
            for picture, seen, prompt in zip(pictures, found, prompts, strict=True)
        ]

    def _boxes(self, picture: Image.Image, seen: Sequence[Instance], wanted: set[str]) -> Boxes:
        asked = [i for i, one in enumerate(seen) if one.name in wanted and self.namer is not None]
        names = self.namer.name(picture, [seen[i] for i in asked]) if self.namer and asked else []
        colour = dict(zip(asked, names))
        boxes: Boxes = {}
        for i, one in enumerate(seen):
            boxes.setdefault(one.name, []).append(replace(one.box, color=colour.get(i)))
        return boxes


def coloured(prompt: Prompt) -> set[str]:
    """The classes of which the prompt wants a colour."""
    return {clause["class"] for clause in (prompt.spec or {}).get("include", ()) if "color" in clause}
