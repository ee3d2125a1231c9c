"""A grid of pictures with their captions, as one PNG for people to look at."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import TastemakerError
from .images import save_pillow, to_pillow

GAP, LEADING, LINES = 8, 15, 4  # pixels, pixels, most lines of a caption
LEAST = 128  # pictures smaller than this are shown enlarged by a whole factor, so that captions fit


def save_grid(
    images: Tensor | Sequence[Tensor],
    path: str | Path,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
) -> None:
    """Write (B, 3, H, W), or pictures of several sizes, as one picture with a caption under each.

    columns None: about as many as rows. Small pictures are enlarged without smoothing; captions wrap, and end in an
    ellipsis after four lines. Raises TastemakerError without pictures, or where captions are too few or too many.
    """
    save_pillow(draw_grid(images, captions, columns), path)


def draw_grid(
    images: Tensor | Sequence[Tensor], captions: Sequence[str] | None = None, columns: int | None = None
) -> Image.Image:
    """As `save_grid`, but gives the picture."""
    if not len(images):
        raise TastemakerError("expected at least one picture for a grid, got none")
    if captions is not None and len(captions) != len(images):
        raise TastemakerError(f"expected one caption per picture, got {len(captions)} for {len(images)} pictures")
    pictures = _enlarged([to_pillow(image) for image in images])
    width, height = (max(p.size[axis] for p in pictures) for axis in (0, 1))
    texts = [wrap(caption, width) for caption in captions or [""] * len(pictures)]
    columns = min(columns or max(1, round(len(pictures) ** 0.5)), len(pictures))
    return _paste(pictures, texts, columns, width, height)


def _paste(pictures: list[Image.Image], texts: list[list[str]], columns: int, width: int, height: int) -> Image.Image:
    rows = -(-len(pictures) // columns)
    caption = LEADING * max(len(lines) for lines in texts) + (GAP // 2 if any(texts) else 0)
    across, down = width + GAP, height + caption + GAP
    sheet = Image.new("RGB", (columns * across + GAP, rows * down + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, lines) in enumerate(zip(pictures, texts)):
        left, top = GAP + i % columns * across, GAP + i // columns * down
        sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        for k, line in enumerate(lines):
            draw.text((left, top + height + GAP // 2 + k * LEADING), line, fill="black", font=_font())
    return sheet


def _enlarged(pictures: list[Image.Image]) -> list[Image.Image]:
    factor = max(1, -(-LEAST // max(max(p.size) for p in pictures)))
    return [p.resize((p.width * factor, p.height * factor), Image.Resampling.NEAREST) for p in pictures]


def wrap(text: str, width: int) -> list[str]:
    """Lines no wider than `width` pixels; at most LINES, the last one cut with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1] + "…"]
    return [_cut(line, width) for line in lines]


def _cut(line: str, width: int) -> str:
    if _font().getlength(line) <= width:
        return line
    while line and _font().getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans from matplotlib's files (Latin, Greek, Cyrillic, symbols), without importing matplotlib."""
    package = importlib.util.find_spec("matplotlib")
    file = Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if package and package.origin else None
    return ImageFont.truetype(str(file), 12) if file and file.exists() else ImageFont.load_default(12)
