"""A set of pictures on disk, looked at once: features and their moments, rewards, and how the pictures look.

Pictures are read in batches of one size and none is kept; what is kept grows by one row a picture.
Letters: N pictures, D features, R rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..data.files import json_lines, read_text
from ..encoders.protocol import Encoder, feature_batches
from ..errors import TastemakerError
from ..evaluation.drift import OF_DRL, figures
from ..evaluation.frechet import Moments
from ..protocols import Reward
from ..records import Prompt
from ..sampling import score_batch
from .reading import Job
from .score import group_by_size, list_jobs

BATCH = 64
LIST = "pictures.jsonl"  # what `tastemaker sample` writes beside its pictures


@dataclass(frozen=True)
class Seen:
    """What was found, a row a readable picture."""

    keys: list[tuple[str, str]]  # words and seed or file name: equal in two sets where two pictures belong together
    prompts: list[str]
    moments: dict[str, Moments]  # by feature space
    features: dict[str, Tensor]  # (N, D) float32; only of the spaces that were to be kept
    scores: Tensor  # (N, R)
    looks: dict[str, Tensor]  # the five statistics of DRL, (N,) each

    def __len__(self) -> int:
        return len(self.keys)


def look_at(
    path: Path,
    encoders: Mapping[str, Encoder],
    keep: Sequence[str] = (),
    rewards: Sequence[Reward] = (),
    class_names: Sequence[str] = (),
) -> Seen:
    """Every picture of `path` that can be read; the others are named. keep: spaces whose features are kept.

    class_names: where given, a prompt that is a number becomes "a photo of a NAME" (the words that DRL's rewards see,
    arXiv 2606.19162, section I). Raises TastemakerError where fewer than two pictures can be read.
    """
    jobs, keys = listed(path, class_names)
    errors: dict[int, str] = {}
    moments = {space: Moments.empty(encoder.dim) for space, encoder in encoders.items()}
    features = {space: torch.empty(len(jobs), encoders[space].dim) for space in keep}
    scores = torch.empty(len(jobs), len(rewards))
    looks = {figure.__name__: torch.empty(len(jobs)) for figure in OF_DRL}
    read = torch.zeros(len(jobs), dtype=torch.bool)
    for ready, images in group_by_size(jobs, BATCH, {}, errors):
        rows = torch.tensor([job.index for job in ready])
        for space, encoder in encoders.items():
            (found,) = feature_batches(encoder, [images])
            moments[space].update(found)
            if space in features:
                features[space][rows] = found
        scores[rows] = score_batch(rewards, images, [Prompt(job.prompt) for job in ready])
        for name, values in figures(images, OF_DRL).items():
            looks[name][rows] = values
        read[rows] = True
    for reason in errors.values():
        print(f"left out: {reason}")
    if read.sum() < 2:
        raise TastemakerError(
            f"{path} has {int(read.sum())} readable pictures; a distance between sets needs 2 or more"
        )
    kept = read.nonzero()[:, 0].tolist()
    return Seen(
        [keys[i] for i in kept],
        [jobs[i].prompt for i in kept],
        moments,
        {space: rows if read.all() else rows[read] for space, rows in features.items()},
        scores[read],
        {name: values[read] for name, values in looks.items()},
    )


def listed(path: Path, class_names: Sequence[str] = ()) -> tuple[list[Job], list[tuple[str, str]]]:
    """The pictures of a folder of `tastemaker sample` by its list, of any other as `tastemaker score` does; and what
    tells them apart. Raises TastemakerError where there are none."""
    if not (path / LIST).is_file():
        jobs = [_named(job, class_names) for job in list_jobs(path)]
        return jobs, [(job.prompt, job.name) for job in jobs]
    rows = [row for _, row in json_lines(read_text(path / LIST), str(path / LIST))]
    try:
        jobs = [Job(i, row["file"], path / row["file"], row["prompt"]) for i, row in enumerate(rows)]
        seeds = [str(row.get("seed", row["file"])) for row in rows]
    except (KeyError, TypeError) as error:
        raise TastemakerError(f"expected `file` and `prompt` in every row of {path / LIST}: {error}") from error
    if not jobs:
        raise TastemakerError(f"{path / LIST} lists no pictures")
    jobs = [_named(job, class_names) for job in jobs]
    return jobs, [(job.prompt, seed) for job, seed in zip(jobs, seeds)]


def _named(job: Job, class_names: Sequence[str]) -> Job:
    if not class_names or not job.prompt.isdigit():
        return job
    number = int(job.prompt)
    if number >= len(class_names):
        raise TastemakerError(f"{job.path} is of class {number}, but only {len(class_names)} class names were given")
    return Job(job.index, job.name, job.path, f"a photo of a {class_names[number]}")


def partners(a: Seen, b: Seen) -> tuple[list[int], list[int]]:
    """Rows of a and of b that share words and seed (or file name); none where keys are not unique."""
    if len(set(a.keys)) < len(a) or len(set(b.keys)) < len(b):
        return [], []
    place = {key: j for j, key in enumerate(b.keys)}
    pairs = [(i, place[key]) for i, key in enumerate(a.keys) if key in place]
    return [i for i, _ in pairs], [j for _, j in pairs]
