"""How small a picture is as JPEG: the black-box reward of DDPO (Black et al., arXiv 2305.13301, section 5.1)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ..errors import NotDifferentiable
from ..picture_bytes import as_array
from ..records import Prompt, Provenance

QUALITY = 95


class Compressibility:
    """Minus the kilobytes (of 1000 bytes) that Pillow writes at quality 95; higher is smaller, 0 is never reached."""

    name = "compressibility"
    differentiable = False
    range = (-math.inf, 0.0)
    provenance = Provenance("compressibility", preprocessing=f"1: 8 bits, Pillow JPEG quality {QUALITY}")

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,); the prompts are not read. Raises NotDifferentiable where a gradient is
        asked for. A picture with NaN gives NaN."""
        if torch.is_grad_enabled() and images.requires_grad:
            raise NotDifferentiable("compressibility counts bytes and has no gradient; use best-of-n, ddpo or grpo")
        sizes = [jpeg_bytes(Image.fromarray(p)) for p in as_array(images)]
        scores = torch.tensor([-size / 1000 for size in sizes], device=images.device)
        return torch.where(images.isnan().flatten(1).any(1), float("nan"), scores)


def jpeg_bytes(picture: Image.Image) -> int:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.tell()
