"""Whether a picture shows the words that its prompt puts in quotes, read by rapidocr (Apache-2.0).

    score = 1 - edits(asked, read) / max(len(asked), len(read))

Letters in lower case, every run of spaces one space; several quotes are joined in their order, as are the lines read.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingExtra
from ..picture_bytes import as_array
from ..records import Prompt, Provenance

QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|«([^»]+)»|(?<!\w)\'([^\']+)\'(?!\w)|(?<!\w)‘([^’]+)’(?!\w)')


class OcrMatch:
    """Not differentiable. 1 where the words are read as asked, 0 where nothing of them is; NaN where the prompt asks
    for no words, or the picture has a NaN. reader: (H, W, 3) uint8 RGB -> the text; None: rapidocr."""

    name = "ocr"
    differentiable = False
    range = (0.0, 1.0)

    def __init__(self, reader: Callable[[np.ndarray], str] | None = None):
        self.reader = reader or rapidocr()
        self.provenance = Provenance("rapidocr" if reader is None else "reader", preprocessing="8-bit RGB, own size")

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,)."""
        asked = [wanted(prompt.text) for prompt in prompts]
        return torch.tensor([self.one(image, words) for image, words in zip(images.detach().cpu(), asked)])

    def one(self, image: Tensor, words: str) -> float:
        if not words or not image.isfinite().all():
            return math.nan
        try:
            return similarity(words, plain(self.reader(as_array(image))))
        except Exception as error:
            warnings.warn(f"'ocr' could not read a picture: {type(error).__name__}: {error}", stacklevel=3)
            return math.nan


def wanted(prompt: str) -> str:
    """The quoted words of a prompt, lower case; "" where there are none. An apostrophe is no quote."""
    return plain(" ".join(next(filter(None, groups)) for groups in QUOTED.findall(prompt)))


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def similarity(a: str, b: str) -> float:
    """1 for equal texts, 0 where every letter differs; 1 for two empty ones."""
    return 1 - edits(a, b) / max(len(a), len(b), 1)


def edits(a: str, b: str) -> int:
    """Levenshtein's distance: fewest insertions, deletions and replacements."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (x != y)))
    return row[-1]


def rapidocr() -> Callable[[np.ndarray], str]:
    """rapidocr's reader with its packaged models. Raises MissingExtra where it is not installed."""
    try:
        from rapidocr import RapidOCR
    except ImportError:
        raise MissingExtra("rapidocr", "ocr") from None
    engine = RapidOCR()

    def read(pixels: np.ndarray) -> str:
        found = engine(pixels[..., ::-1])  # it expects BGR
        return " ".join(getattr(found, "txts", None) or ())

    return read
