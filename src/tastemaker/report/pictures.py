"""Pictures side by side: the same prompt and seed from every contender, with a mark for right or wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

LONGEST = 512  # pixels; larger pictures are made smaller so that a page can be sent by mail


@dataclass(frozen=True)
class Picture:
    """A file, what made it, and whether it shows what was asked (None: nobody checked)."""

    path: Path
    label: str = ""
    correct: bool | None = None
    longest: int = LONGEST


@dataclass(frozen=True)
class PictureRow:
    prompt: str
    pictures: Sequence[Picture]
    seed: int | None = None


@dataclass(frozen=True)
class PictureGrid:
    """A card per prompt and seed. large: for sheets of many pictures, two cards abreast at most."""

    rows: Sequence[PictureRow]
    caption: str = ""
    large: bool = False

    def html(self) -> str:
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        kind = "cards large" if self.large else "cards"
        return f'<figure><div class="{kind}">{"".join(map(_card, self.rows))}</div>{caption}</figure>'


def _card(row: PictureRow) -> str:
    seed = "" if row.seed is None else f' <span class="quiet">seed {row.seed}</span>'
    pictures = "".join(_picture(p, row.prompt) for p in row.pictures)
    head = f'<p class="prompt">{escape(row.prompt)}{seed}</p>'
    return f'<article class="card">{head}<div class="row">{pictures}</div></article>'


def _picture(picture: Picture, prompt: str) -> str:
    words = {True: ("right", "✓", "shows what was asked"), False: ("wrong", "✗", "does not show what was asked")}
    mark = ""
    if picture.correct is not None:
        kind, sign, said = words[picture.correct]
        mark = f'<span class="mark {kind}" role="img" aria-label="{said}" title="{said}">{sign}</span>'
    source = data_uri(picture.path, picture.longest)
    alt = escape(f"{picture.label}: {prompt}" if picture.label else prompt)
    image = f'<img src="{source}" alt="{alt}">' if source else '<div class="absent">no readable picture</div>'
    label = f"<span>{escape(picture.label)}</span>" if picture.label else ""
    return f'<div class="picture"><div class="frame">{image}{mark}</div>{label}</div>'


def data_uri(path: Path, longest: int = LONGEST) -> str:
    """The picture as text for `src`; '' where the file is absent or no picture."""
    try:
        with Image.open(path) as image:
            image.load()
            if max(image.size) <= longest and image.format == "PNG":
                return _uri(path.read_bytes(), "png")
            image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=88)
            return _uri(buffer.getvalue(), "jpeg")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return ""


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
