"""Pictures by content: kept as they came under their sha256, and shown as PNG without any metadata.

Generators write prompts, seeds and model names into PNG and EXIF fields, so what annotators see is drawn anew from
the pixels. Pixels are the same in both.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps
from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from ..errors import TastemakerError
from .database import Picture, get_setting

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp"}
MOST_BYTES = 32 * 2**20
MOST_PIXELS = 64_000_000


@dataclass(frozen=True)
class Kept:
    """A picture that is in the store."""

    sha256: str
    suffix: str
    width: int
    height: int


class PictureStore:
    """A folder of pictures: `ab/abcdef....png` as they came, `shown/ab/abcdef....png` as they are shown."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def add(self, content: bytes, where: str) -> Kept:
        """Keep a picture. `where` names it in errors.

        Raises TastemakerError for more than 32 MiB or 64 million pixels, and for what Pillow cannot decode whole.
        """
        picture, kind = decode(content, where)
        kept = Kept(hashlib.sha256(content).hexdigest(), SUFFIXES[kind], *picture.size)
        original, shown = self.original(kept.sha256, kept.suffix), self.shown(kept.sha256)
        if not shown.is_file():
            drawn = io.BytesIO()
            picture.save(drawn, "PNG")
            _write(shown, drawn.getvalue())
        if not original.is_file():
            _write(original, content)
        return kept

    def original(self, sha256: str, suffix: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}{suffix}"

    def shown(self, sha256: str) -> Path:
        return self.folder / "shown" / sha256[:2] / f"{sha256}.png"


def decode(content: bytes, where: str) -> tuple[Image.Image, str]:
    """The upright picture on white, RGB, and its format. Raises TastemakerError as `PictureStore.add` says."""
    if len(content) > MOST_BYTES:
        raise TastemakerError(f"{where}: expected at most {MOST_BYTES >> 20} MiB, got {len(content) / 2**20:.1f}")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=list(SUFFIXES)) as opened:
            warnings.simplefilter("ignore")
            pixels = opened.width * opened.height  # from the head of the file: checked before anything is unpacked
            if pixels > MOST_PIXELS:
                raise TastemakerError(f"{where}: expected at most {MOST_PIXELS:,} pixels, got {pixels:,}")
            opened.load()
            return _on_white(ImageOps.exif_transpose(opened)), str(opened.format)
    except TastemakerError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and others
        known = ", ".join(SUFFIXES)
        raise TastemakerError(f"{where}: expected a picture ({known}), but it cannot be decoded: {error}") from error


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("RGB")
    clean = Image.new("RGB", image.size)
    clean.paste(image)  # leaves behind whatever hangs on the old one
    return clean


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: under another name first, then moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def store_of(db: Connection | Session) -> PictureStore:
    """Where this database's pictures lie. Raises TastemakerError where that was never said."""
    folder = get_setting(db, "pictures")
    if folder is None:
        raise TastemakerError("this database does not know a folder for pictures; open it with `open_store`")
    return PictureStore(folder)


def remember(db: Connection | Session, kept: Kept) -> None:
    """The picture's row, where it is not there yet."""
    if db.execute(select(Picture.sha256).where(Picture.sha256 == kept.sha256)).first() is None:
        db.execute(Picture.__table__.insert().values(**kept.__dict__))  # type: ignore[attr-defined]
