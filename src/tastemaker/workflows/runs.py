"""A run is a folder that says what it was, how it went and how to go on:

config.yaml     every setting, defaults included        metrics.jsonl   one line a step, no step twice
versions.json   exact versions, seed, weight hashes     samples/        pictures made on the way
checkpoints/    the last two states, see checkpoints.py result.json     what came out; report.html shows it

Of several processes the first one writes, but for the parts of a checkpoint; all see the same folder.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from ..errors import TastemakerError
from ..ranks import first, on_first
from ..records import StepRecord
from ..report.metrics import read_metrics
from .checkpoints import Resumable, load_checkpoint, newest_checkpoint, save_checkpoint, sweep
from .configs import plain, read_config
from .files import disk_errors, finite, write_json, write_text, write_yaml
from .processes import require_joined
from .versions import EXACT, differences, environment

C = TypeVar("C")
FILES = ("config.yaml", "metrics.jsonl", "versions.json", "result.json", "report.html")
FOLDERS = ("samples", "checkpoints")
ALONE = {"processes": 1, "sharded": False}  # of runs that do not say


@dataclass(frozen=True)
class Run:
    """A run folder that is open for writing."""

    folder: Path
    config: Mapping[str, Any]  # plain values, as in config.yaml

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: Any,
        command: Sequence[str] = (),
        overwrite: bool = False,
        weights: Mapping[str, str] | None = None,
    ) -> Run:
        """A new run. config: a dataclass; weights: name -> sha256 of what it begins with.

        Raises TastemakerError where the folder holds anything already, unless `overwrite` and it is a run: then
        the files of that run are removed, and only those.
        """
        folder, settings = Path(folder), plain(config)
        versions = environment(command, settings.get("seed"), weights or {})

        def begin() -> None:
            make_room(folder, overwrite)
            for name in FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            write_json(folder / "versions.json", versions)
            write_yaml(folder / "config.yaml", settings)  # last: its presence says that this is a run

        on_first(begin)
        return cls(folder, settings)

    @classmethod
    def resume(cls, folder: str | Path, config: Any, weights: Mapping[str, str] | None = None) -> Run:
        """Open a run again to go on bit for bit, with the number of threads it had.

        Raises TastemakerError with what differs where settings, versions, device, starting weights or the number of
        processes are not those that the run began with.
        """
        folder = Path(folder)
        recorded, settings = _recorded(folder), plain(config)
        before = ALONE | json.loads((folder / "versions.json").read_text())
        now = environment((), settings.get("seed"), weights or {})
        changed = differences(recorded, settings)
        changed += differences({k: before.get(k) for k in EXACT}, {k: now.get(k) for k in EXACT})
        if changed:
            raise TastemakerError(
                f"cannot resume {folder} bit-equal, these differ (run -> now): {'; '.join(changed)}. Set them back, "
                "or start a new run with another --out"
            )
        torch.set_num_threads(before["threads"])
        return cls(folder, recorded)

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def save(self, state: Resumable) -> Path:
        """Write a checkpoint now."""
        return save_checkpoint(self.checkpoints, state)

    def restore(self, state: Resumable) -> int:
        """Bring the state to the newest whole checkpoint, and metrics.jsonl with it; returns the step, 0 if there is
        none (the run then starts from the beginning). What a crash left half-written is removed."""
        newest = newest_checkpoint(self.checkpoints)
        if newest is not None:
            load_checkpoint(newest, state)
        on_first(lambda: self._sweep(state.step))
        return state.step

    def _sweep(self, step: int) -> None:
        sweep(self.checkpoints, above=step)
        rows = [row for row in read_metrics(self.folder / "metrics.jsonl") if row["step"] <= step]
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def log(self, record: StepRecord) -> None:
        """Append one line to metrics.jsonl; a figure that is not finite is written as null."""
        if not first():
            return
        row = finite({"step": record.step, "seconds": round(record.seconds, 4), **record.values})
        path = self.folder / "metrics.jsonl"
        with disk_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_result(self, result: Mapping[str, Any]) -> Path:
        """result.json: plain values, records and intervals become mappings."""
        on_first(lambda: write_json(self.folder / "result.json", plain(result)))
        return self.folder / "result.json"


def read_settings(
    kind: type[C], config_path: str | Path | None, overrides: Sequence[str], resume: str | Path | None = None
) -> C:
    """The checked settings of a command; on resume those of the run, unless a file is given."""
    if resume is not None:
        _recorded(Path(resume))
        config_path = config_path or Path(resume) / "config.yaml"
    return read_config(kind, config_path, overrides)


def open_run(
    config: Any,
    out: str | Path | None,
    resume: str | Path | None,
    weights: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Run:
    """The folder that a command writes to: new at `out`, or taken up again at `resume`.

    Raises TastemakerError in one of several processes that do not work together."""
    require_joined()
    if resume is not None:
        return Run.resume(resume, config, weights)
    if out is None:
        raise TastemakerError("expected a folder for the run; give --out FOLDER, or --resume RUN to go on with one")
    return Run.create(out, config, sys.argv, overwrite, weights)


def _recorded(folder: Path) -> dict[str, Any]:
    if not (folder / "config.yaml").is_file() or not (folder / "versions.json").is_file():
        raise TastemakerError(f"{folder} is not a run: expected a folder with config.yaml and versions.json in it")
    return yaml.safe_load((folder / "config.yaml").read_text()) or {}


def make_room(folder: Path, overwrite: bool = False) -> None:
    """Raise TastemakerError where a new run cannot be written; with `overwrite`, remove the files of an old one."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    is_run = (folder / "config.yaml").is_file()
    if not (is_run and overwrite):
        what = "already holds a run; go on with it by --resume" if is_run else "exists and is not a run; move it away"
        raise TastemakerError(f"{folder} {what}, or choose another --out")
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
