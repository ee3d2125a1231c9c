"""Where GenEval's pictures come from: a generator, which draws them into the official layout, or a folder.

    00000/metadata.jsonl     the prompt with its check      00000/samples/0000.png ...   its pictures

A folder of `tastemaker sample` from a GenEval prompt file is read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..data.files import json_lines, read_text, write_text
from ..data.images import list_images, save_image
from ..data.prompts import validate_spec
from ..errors import TastemakerError
from ..picture_bytes import as_bytes, from_bytes
from ..protocols import Generator
from ..records import Prompt
from ..sampling import sample_batches
from .reading import Job
from .score import group_by_size

METADATA, LIST = "metadata.jsonl", "pictures.jsonl"
Batches = Iterator[tuple[list[int], Tensor]]  # rows, and their pictures (b, 3, H, W) of one size, as saved


class Pictures(Protocol):
    @property
    def prompts(self) -> list[Prompt]: ...  # one per picture
    @property
    def files(self) -> list[str]: ...
    def batches(self, size: int, errors: dict[int, str]) -> Batches: ...  # errors: filled, by row


@dataclass(frozen=True)
class Stored:
    """Pictures on disk. files are relative to the folder."""

    folder: Path
    prompts: list[Prompt]
    files: list[str]

    def batches(self, size: int, errors: dict[int, str]) -> Batches:
        jobs = [Job(i, f, self.folder / f, p.text) for i, (f, p) in enumerate(zip(self.files, self.prompts))]
        for ready, images in group_by_size(jobs, size, {}, errors):
            yield [job.index for job in ready], images


@dataclass(frozen=True)
class Drawn:
    """Pictures of a generator: each prompt with each seed, kept at `folder` as they come."""

    generator: Generator
    rows: list[Prompt]
    seeds: Sequence[int]
    folder: Path

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for prompt in self.rows for _ in self.seeds]

    @property
    def files(self) -> list[str]:
        return [f"{i:05d}/samples/{k:04d}.png" for i in range(len(self.rows)) for k in range(len(self.seeds))]

    def batches(self, size: int, errors: dict[int, str]) -> Batches:
        """Rounded to bytes as they are saved, so that the folder gives the same figures."""
        for i, prompt in enumerate(self.rows):
            write_text(self.folder / f"{i:05d}" / METADATA, json.dumps(_row(prompt)) + "\n")
        files, done = self.files, 0
        numbers = [seed for _ in self.rows for seed in self.seeds]
        for images in sample_batches(self.generator, self.prompts, numbers, batch=size):
            rows = list(range(done, done + len(images)))
            images = from_bytes(as_bytes(images)).cpu()
            for row, image in zip(rows, images):
                save_image(image, self.folder / files[row])
            done += len(images)
            yield rows, images


def _row(prompt: Prompt) -> dict:
    return {**(prompt.spec or {}), "prompt": prompt.text}


def is_stored(path: Path) -> bool:
    """A folder of pictures that says what they should show, not a model."""
    return path.is_dir() and ((path / LIST).is_file() or any(path.glob(f"*/{METADATA}")))


def read_stored(folder: Path) -> Stored:
    """Raises TastemakerError for a prompt without a check or without pictures."""
    pairs = list(_listed(folder) if (folder / LIST).is_file() else _official(folder))
    return Stored(folder, [prompt for prompt, _ in pairs], [file for _, file in pairs])


def _official(folder: Path) -> Iterator[tuple[Prompt, str]]:
    for file in sorted(folder.glob(f"*/{METADATA}")):
        prompt = _prompt(*next(json_lines(read_text(file), str(file)), (str(file), None)))
        for path in list_images(file.parent / "samples"):
            yield prompt, path.relative_to(folder).as_posix()


def _listed(folder: Path) -> Iterator[tuple[Prompt, str]]:
    for place, row in json_lines(read_text(folder / LIST), str(folder / LIST)):
        prompt = _prompt(place, row)
        if not isinstance(row.get("file"), str):
            raise TastemakerError(f"{place}: expected `file`, the name of a picture, got {row.get('file')!r}")
        yield prompt, row["file"]


def _prompt(place: str, row: object) -> Prompt:
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise TastemakerError(
            f"{place}: expected a GenEval prompt with its check (tag, include, prompt), got {row!r}"
        )
    spec = {k: row[k] for k in ("tag", "include", "exclude") if k in row}
    validate_spec(spec, place)
    return Prompt(row["prompt"], spec=spec)
