"""Pictures on disk as float32 (3, H, W) in [0, 1], and back. Letters: B batch, C H W."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from ..errors import TastemakerError
from ..picture_bytes import as_array
from .files import whole_file

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I"}  # Pillow's modes of 16-bit greyscale


def read_bytes(path: str | Path) -> bytes:
    """Raises TastemakerError naming the file where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TastemakerError(f"cannot read {path}: {error.strerror or error}") from error


def load_image(path: str | Path) -> Tensor:
    """(3, H, W) float32 in [0, 1]. Raises TastemakerError naming a file that is missing, truncated or no picture."""
    return decode_image(read_bytes(path), str(path))


def decode_image(content: bytes, where: str) -> Tensor:
    """The picture in the bytes of a file; `where` names it in errors.

    Turned upright by its EXIF orientation; transparency lies on white; 16-bit grey keeps its depth; the first
    frame of an animation. Colour profiles are not applied.
    """
    try:
        # a warning for a big picture is no help in a list of thousands; Pillow's own limit still raises
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as opened:
            warnings.simplefilter("ignore")
            opened.load()
            pixels = _pixels(ImageOps.exif_transpose(opened))
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error and others
        raise TastemakerError(f"cannot read {where} as a picture: {error or type(error).__name__}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    if image.mode in DEEP:
        grey = np.asarray(image).astype(np.float32) / 65535
        return _grey(grey, "16-bit")
    if image.mode == "F":
        return _grey(np.asarray(image, np.float32), "floating-point")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"), np.float32) / 255


def _grey(values: np.ndarray, kind: str) -> np.ndarray:
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{kind} values outside the expected range")
    return np.repeat(values[..., None], 3, 2)


def to_pillow(image: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1], clamped and rounded, as 8-bit RGB."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise TastemakerError(f"expected a picture of shape (3, H, W), got {tuple(image.shape)}")
    return Image.fromarray(as_array(image))


def save_image(image: Tensor, path: str | Path, **options: Any) -> None:
    """(3, H, W) in [0, 1] to a file whose suffix says the format; `options` go to Pillow (`quality`, ...).

    Raises TastemakerError for an unknown suffix or a full disk; a half-written file is never left.
    """
    save_pillow(to_pillow(image), path, **options)


def save_pillow(picture: Image.Image, path: str | Path, **options: Any) -> None:
    """As `save_image`, for a Pillow image."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise TastemakerError(
            f"cannot tell a picture format from {path}; expected one of {', '.join(sorted(SUFFIXES))}"
        )
    with whole_file(path) as temporary:
        picture.save(temporary, **options)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) or (B, 3, H, W) to the given size, bicubic with antialiasing, within [0, 1]."""
    if images.shape[-2:] == (height, width):
        return images
    batch = images if images.ndim == 4 else images[None]
    out = F.interpolate(batch, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return out if images.ndim == 4 else out[0]


def crop_square(image: Tensor) -> Tensor:
    """(3, H, W) -> (3, S, S), S = min(H, W), around the centre."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]


def pad_square(image: Tensor) -> Tensor:
    """(3, H, W) -> (3, S, S), S = max(H, W), white on both sides."""
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(image, (left, side - width - left, top, side - height - top), value=1.0)


def list_images(folder: str | Path) -> list[Path]:
    """Every picture below a folder by suffix, sorted by path; hidden files are passed over.

    Raises TastemakerError where the folder is missing or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TastemakerError(f"expected a folder of pictures, but {folder} is not a folder")
    found = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not _hidden(p, folder)]
    if not found:
        raise TastemakerError(f"{folder} holds no pictures (looked for {', '.join(sorted(SUFFIXES))})")
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix())


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def content_hash(content: bytes | str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(content if isinstance(content, bytes) else read_bytes(content)).hexdigest()


def stack(images: Sequence[Tensor]) -> Tensor:
    """(3, H, W) pictures of one size -> (B, 3, H, W). Raises TastemakerError where the sizes differ."""
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise TastemakerError(f"expected pictures of one size, got {sorted(sizes)}; resize them first")
    return torch.stack(list(images))
