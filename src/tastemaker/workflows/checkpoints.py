"""Checkpoints of a run: `step-000120.pt` and, written after it, `step-000120.sha256` that makes it count.

A checkpoint without its checksum, or whose checksum differs, is never read: the one before it is. Only tensors and
plain values are stored, and they are read with `weights_only=True`, so that nothing is ever unpickled.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import TastemakerError
from .files import PARTIAL, sha256_of, write_text, write_whole

FORMAT = 1
KEPT = 2


class Resumable(Protocol):
    """What can be put away and taken up again: a training state, or several of them behind one face."""

    step: int

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


def save_checkpoint(folder: Path, state: Resumable) -> Path:
    """Write the state as it is now and keep the last two. Raises TastemakerError on a full disk, with the
    checkpoints of before untouched."""
    path = folder / f"step-{state.step:06d}.pt"
    kept = [p for p in complete_checkpoints(folder) if p != path]
    advice = f"The last complete checkpoint is {kept[0].name}." if kept else "No checkpoint was written before."
    content = {"format": FORMAT, "step": state.step, "state": state.state_dict()}
    digest = write_whole(path, lambda file: torch.save(content, file), advice)
    write_text(path.with_suffix(".sha256"), f"{digest}\n", advice)
    for old in kept[KEPT - 1 :]:
        _remove(old)
    return path


def complete_checkpoints(folder: Path) -> list[Path]:
    """Newest first: those whose checksum was written."""
    found = [p for p in folder.glob("step-*.pt") if p.with_suffix(".sha256").exists()]
    return sorted(found, key=lambda p: int(p.stem.split("-")[1]), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest one that is whole; a damaged one is named in a warning and passed over."""
    for path in complete_checkpoints(folder):
        if path.with_suffix(".sha256").read_text().strip() == sha256_of(path):
            return path
        warnings.warn(f"{path} is damaged (its checksum differs); using the one before it", stacklevel=2)
    return None


def load_checkpoint(path: Path, state: Resumable) -> None:
    """Take the state up from a file. Raises TastemakerError where its format is of another version."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise TastemakerError(
            f"{path} has checkpoint format {found}, this version of tastemaker reads format {FORMAT}; resume with "
            "the version in the run's versions.json, or start a new run"
        )
    state.load_state_dict(content["state"])


def sweep(folder: Path, above: int) -> None:
    """Remove what a crash left: partial files, and checkpoints later than step `above`, which were not whole."""
    for path in folder.glob(f"*{PARTIAL}"):
        path.unlink()
    for path in folder.glob("step-*.pt"):
        if int(path.stem.split("-")[1]) > above:
            _remove(path)


def _remove(path: Path) -> None:
    path.with_suffix(".sha256").unlink(missing_ok=True)  # first the mark that it counts
    path.unlink(missing_ok=True)
