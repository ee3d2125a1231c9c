"""Score pictures on disk with rewards: a folder, a CSV or one file in, a Parquet file out (see data/scores.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from ..data.datasets import read_table
from ..data.files import read_text
from ..data.images import list_images
from ..data.scores import Scores, write_scores
from ..errors import TastemakerError, UnknownName
from ..protocols import Reward
from ..records import Prompt
from ..sampling import score_checked
from .reading import Job, Look, batches


def score_folder(
    rewards: Sequence[Reward],
    path: str | Path,
    out: str | Path,
    prompts: Mapping[str, str] | str | None = None,
    batch: int = 64,
    console: Console | None = None,
) -> Scores:
    """Score every picture, and write `out` (Parquet) whole or not at all.

    path: a folder; a CSV with the column `file` (paths relative to it) and, if it has one, `prompt`; or one picture.
    prompts: words by file name, or one text for all; None: the CSV's `prompt`, else the .txt beside a picture, else
    none. Rewards of a view (see encoders/pixels.py) share its pixels; the others get pictures at their own size, in
    batches of one size. A picture that cannot be read is left out, shown, and listed in the errors. Files are read
    ahead by threads while the networks compute (see reading.py).
    console: where progress and the summary go (default: standard error).
    Raises TastemakerError where no picture can be read, or a reward fails.
    """
    _check_names(rewards)
    console = console or Console(stderr=True)
    jobs = list_jobs(path, prompts)
    hashes: dict[int, str] = {}
    rows: dict[int, Tensor] = {}
    errors: dict[int, str] = {}
    looks = tuple(dict.fromkeys(look_of(reward) for reward in rewards))
    with _progress(console) as bar, closing(batches(jobs, batch, hashes, errors, looks)) as ready_batches:
        task = bar.add_task("scoring", total=len(jobs))
        for ready, seen in ready_batches:
            values = score_seen(rewards, seen, [Prompt(job.prompt) for job in ready])  # (b, R)
            rows.update({job.index: row for job, row in zip(ready, values)})
            bar.update(task, completed=len(rows) + len(errors))
    if not rows:
        raise TastemakerError(
            f"none of the {len(jobs)} pictures of {path} could be read; {next(iter(errors.values()))}"
        )
    scores = _collect(rewards, jobs, rows, hashes, errors)
    write_scores(out, scores)
    _summary(console, scores, out)
    return scores


def group_by_size(
    jobs: Sequence[Job], batch: int, hashes: dict[int, str], errors: dict[int, str]
) -> Iterator[tuple[list[Job], Tensor]]:
    """Pictures as they are, (b, 3, H, W) of one size; else as `reading.batches`."""
    for ready, seen in batches(jobs, batch, hashes, errors, (None,)):
        yield ready, seen[None]


def look_of(reward: Reward) -> Look:
    """The view that a reward takes pictures by, or None where it takes them as they are."""
    return getattr(reward, "view", None) if hasattr(reward, "score_pixels") else None


def score_seen(rewards: Sequence[Reward], seen: dict[Look, Tensor], prompts: Sequence[Prompt]) -> Tensor:
    """(b, R) of pictures by each look, (b, 3, H, W) or (b, 3, S, S), on the host. Raises as `score_checked` does."""
    columns = []
    for reward in rewards:
        look, device = look_of(reward), _device(reward)
        pixels = seen[look].to(device)
        shared: dict[object, Tensor] = {} if look is None else {look: pixels}
        columns.append(score_checked(reward, pixels, prompts, shared=shared).cpu())
    return torch.stack(columns, 1)


def _device(reward: Reward) -> torch.device:
    network = getattr(reward, "network", None)
    weights = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return torch.device("cpu") if weights is None else weights.device


def list_jobs(path: str | Path, prompts: Mapping[str, str] | str | None = None) -> list[Job]:
    """What `path` names, in order. Raises TastemakerError where there is nothing, or a name has no prompt."""
    path = Path(path)
    found: list[tuple[str, Path, str | None]]
    if path.is_dir():
        found = [(p.relative_to(path).as_posix(), p, None) for p in list_images(path)]
    elif path.suffix.lower() == ".csv":
        found = _csv_files(path)
    else:
        found = [(path.name, path, None)]
    return [Job(i, name, file, _words(name, file, own, prompts)) for i, (name, file, own) in enumerate(found)]


def _csv_files(path: Path) -> list[tuple[str, Path, str | None]]:
    rows, columns = read_table(path)
    if "file" not in columns:
        raise UnknownName("column", "file", columns, f"{path} needs a column of picture paths")
    if not rows:
        raise TastemakerError(f"{path} lists no pictures")
    return [(row["file"], path.parent / row["file"], row.get("prompt")) for _, row in rows]


def _words(name: str, file: Path, own: str | None, prompts: Mapping[str, str] | str | None) -> str:
    if isinstance(prompts, str):
        return prompts
    if prompts is not None:
        if name not in prompts:
            raise UnknownName("picture in the prompts", name, prompts, "Give a prompt for every picture")
        return prompts[name]
    if own is not None:
        return own.strip()
    beside = file.with_suffix(".txt")
    return " ".join(read_text(beside).split()) if beside.is_file() else ""


def _collect(
    rewards: Sequence[Reward],
    jobs: Sequence[Job],
    rows: Mapping[int, Tensor],
    hashes: Mapping[int, str],
    errors: Mapping[int, str],
) -> Scores:
    kept = [job for job in jobs if job.index in rows]
    return Scores(
        tuple(job.name for job in kept),
        tuple(hashes[job.index] for job in kept),
        tuple(job.prompt for job in kept),
        tuple(reward.name for reward in rewards),
        torch.stack([rows[job.index] for job in kept]),
        {reward.name: reward.provenance for reward in rewards},
        tuple((jobs[i].name, reason) for i, reason in sorted(errors.items())),
    )


def _check_names(rewards: Sequence[Reward]) -> None:
    names = [reward.name for reward in rewards]
    if not names or len(set(names)) < len(names):
        raise TastemakerError(f"expected one or more rewards with names of their own, got {names}")


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console)


def _summary(console: Console, scores: Scores, out: str | Path) -> None:
    console.print(f"wrote {out}: {len(scores.files)} pictures, {len(scores.names)} rewards", highlight=False)
    for name, column in zip(scores.names, scores.values.T):
        missing = int(column.isnan().sum())
        if missing:
            console.print(f"reward '{name}' gave no score for {missing} pictures; they stay NaN", highlight=False)
    for _, reason in scores.errors:
        console.print(f"left out: {reason}", highlight=False, markup=False)
