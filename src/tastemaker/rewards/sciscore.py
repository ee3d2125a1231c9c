"""SciScore (Li et al. 2025, arXiv 2504.13129): a CLIP-H tuned as PickScore is, on whether a picture obeys science.

The same formula and preprocessing as PickScore; MIRO stores it divided by 100.
"""

from __future__ import annotations

from pathlib import Path

from ..encoders.clip import Tokens
from .pickscore import PickScore, load_tuned_clip


def load_sciscore(folder: str | Path, tokenizer: str | Path | Tokens | None = None) -> PickScore:
    """SciScore's folder with the tokenizer of any CLIP in it, or in its folder `tokenizer`."""
    return load_tuned_clip(folder, "sciscore", tokenizer)
