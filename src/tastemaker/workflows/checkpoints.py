"""Checkpoints of a run: `step-000120.pt` and, written after it, `step-000120.sha256` that makes it count.

A checkpoint without its checksum, or whose checksum differs, is never read: the one before it is. Only tensors and
plain values are stored, and they are read with `weights_only=True`, so that nothing is ever unpickled.

Where several processes train, each writes what it alone has, the rows of its buffer and its parts of sharded weights,
to `step-000120-rank-1.pt`; the first writes all else. The checksums of all are lines of one file, which comes last.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import TastemakerError
from ..ranks import any_of, first, gather, on_first, rank
from .files import PARTIAL, sha256_of, write_text, write_whole
from .processes import wants_shards

FORMAT = 1
KEPT = 2


class Resumable(Protocol):
    """What can be put away and taken up again: a training state, or several of them behind one face."""

    @property
    def step(self) -> int: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> None: ...


def save_checkpoint(folder: Path, state: Resumable) -> Path:
    """Write the state as it is now and keep the last two. Raises TastemakerError on a full disk, in every process,
    with the checkpoints of before untouched."""
    path = folder / f"step-{state.step:06d}.pt"
    kept = [p for p in complete_checkpoints(folder) if p != path]
    advice = f"The last complete checkpoint is {kept[0].name}." if kept else "No checkpoint was written before."
    digests = _write_parts(path, {"format": FORMAT, "step": state.step, "state": _own_state(state)}, advice)

    def finish() -> None:
        write_text(path.with_suffix(".sha256"), "".join(f"{digest}\n" for digest in digests), advice)
        for old in kept[KEPT - 1 :]:
            _remove(old)

    on_first(finish)
    return path


def _own_state(state: Resumable) -> dict[str, Any]:
    """All of it; where processes hold the same weights, of all but the first what they have for themselves."""
    if first() or wants_shards():
        return state.state_dict()
    return getattr(state, "own_parts", dict)()


def _write_parts(path: Path, content: dict[str, Any], advice: str) -> list[str]:
    """Each process its file; the checksums of all, in their order."""
    digest, error = bytes(32), None
    try:
        digest = bytes.fromhex(write_whole(part_of(path), lambda file: torch.save(content, file), advice))
    except Exception as raised:
        error = raised
    if any_of(error is not None)[0]:
        raise error or TastemakerError(f"another process could not write its part of {path.name}. {advice}")
    return [bytes(row).hex() for row in gather(torch.tensor([list(digest)], dtype=torch.uint8)).tolist()]


def part_of(path: Path) -> Path:
    """The file of this process."""
    return path if first() else path.with_name(f"{path.stem}-rank-{rank()}.pt")


def complete_checkpoints(folder: Path) -> list[Path]:
    """Newest first: those whose checksum was written."""
    found = [p for p in folder.glob("step-*.pt") if p.with_suffix(".sha256").exists()]
    return sorted(found, key=lambda p: int(p.stem.split("-")[1]), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest one that is whole; a damaged one is named in a warning and passed over."""
    for path in complete_checkpoints(folder):
        if not any_of(not _sound(path))[0]:
            return path
        warnings.warn(f"{path} is damaged (its checksum differs); using the one before it", stacklevel=2)
    return None


def _sound(path: Path) -> bool:
    """Whether the part of this process is what was written."""
    digests, part = path.with_suffix(".sha256").read_text().split(), part_of(path)
    return rank() < len(digests) and part.is_file() and digests[rank()] == sha256_of(part)


def load_checkpoint(path: Path, state: Resumable) -> None:
    """Take the state up from a file. Raises TastemakerError where its format is of another version."""
    main, part = part_of(path) if wants_shards() else path, part_of(path)
    content = torch.load(main, map_location="cpu", weights_only=True)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise TastemakerError(
            f"{path} has checkpoint format {found}, this version of tastemaker reads format {FORMAT}; resume with "
            "the version in the run's versions.json, or start a new run"
        )
    if part != main:
        content["state"] |= torch.load(part, map_location="cpu", weights_only=True)["state"]
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
    for part in (path, *path.parent.glob(f"{path.stem}-rank-*.pt")):
        part.unlink(missing_ok=True)
