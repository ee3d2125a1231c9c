"""From run folders to pages: what `tastemaker report` does. Reads files only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import TastemakerError
from .comparison import contenders, sections_of
from .figures import Curves
from .metrics import read_metrics
from .page import Block, Listing, Page, Section, write_page
from .pictures import Picture, PictureGrid, PictureRow
from .tables import Table, number

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_SAMPLES = 6
SHEET = 1600  # pixels, the longest side of a sheet of samples


def write_reports(runs: Sequence[str | Path], out: str | Path | None = None) -> list[Path]:
    """RUN/report.html for every run, or all runs on one page where `out` is given. Returns what was written.

    Raises TastemakerError where a folder is not a run, or its files are not readable.
    """
    folders = [Path(run) for run in runs]
    if out is None:
        return [write_page(page_of(folder), folder / "report.html") for folder in folders]
    pages = [page_of(folder) for folder in folders]
    if len(pages) == 1:
        return [write_page(pages[0], out)]
    sections = [Section(f"{f.name}: {s.title}", s.blocks) for f, page in zip(folders, pages) for s in page.sections]
    return [
        write_page(Page(f"{len(pages)} runs", ", ".join(f.name for f in folders), sections, pages[0].footer), out)
    ]


def page_of(folder: Path) -> Page:
    """The page of one run: its result, pictures, curves, settings and versions, as far as they are there."""
    if not (folder / "versions.json").is_file() and not (folder / "result.json").is_file():
        raise TastemakerError(f"{folder} is not a run: expected a folder with versions.json or result.json in it")
    result, versions = _json(folder / "result.json"), _json(folder / "versions.json")
    sections = [*sections_of(result, folder), *_samples(folder, result), *_curves(folder), *_making(folder, versions)]
    title = str(result.get("title", f"Run {folder.resolve().name}"))
    footer = f"Made by tastemaker {versions['tastemaker']}." if "tastemaker" in versions else "Made by tastemaker."
    return Page(title, _lead(result, versions), sections, footer)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TastemakerError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise TastemakerError(f"{path} must hold a JSON object, it holds a {type(value).__name__}")
    return value


def _lead(result: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    parts = [f"{len(contenders(result))} contenders on the same prompts and seeds"] if contenders(result) else []
    parts += [f"seed {versions['seed']}"] if versions.get("seed") is not None else []
    parts += [f"{versions['device']}, threads: {versions['threads']}"] if "device" in versions else []
    return ", ".join(parts)


def _samples(folder: Path, result: Mapping[str, Any]) -> list[Section]:
    """The pictures made on the way, where the result itself shows none."""
    found = sorted(p for p in (folder / "samples").glob("*") if p.suffix.lower() in SUFFIXES)
    if not found or result.get("pictures"):
        return []
    steps = range(MOST_SAMPLES)
    shown = [found[-1 - i * (len(found) - 1) // (MOST_SAMPLES - 1)] for i in steps]  # from the last to the first
    rows = [PictureRow(path.stem, [Picture(path, longest=SHEET)]) for path in dict.fromkeys(shown)]
    caption = f"{len(rows)} of {len(found)} files in samples/, the last one first." if len(found) > 1 else ""
    return [Section("Samples", [PictureGrid(rows, caption, large=True)])]


def _curves(folder: Path) -> list[Section]:
    """metrics.jsonl of the run, and of runs inside it such as the training inside a demo."""
    blocks: list[Block] = []
    for path in [folder / "metrics.jsonl", *sorted(folder.glob("*/metrics.jsonl"))]:
        rows = read_metrics(path)
        if len(rows) > 1:
            where = "" if path.parent == folder else f"{path.parent.name}: "
            seconds = sum(row.get("seconds") or 0 for row in rows)
            steps = f"{where}{number(len(rows))} steps in {number(seconds)} seconds"
            caption = f"{steps}; faint: each step, bold: a running mean."
            blocks.append(Curves(rows, caption=caption))
    return [Section("Training", blocks)] if blocks else []


def _making(folder: Path, versions: Mapping[str, Any]) -> list[Section]:
    rows = [[key.replace("_", " "), _words(value)] for key, value in versions.items()]
    blocks: list[Block] = [Table(["Made with", ""], rows)] if rows else []
    config = folder / "config.yaml"
    blocks += [Listing("Settings (config.yaml)", config.read_text(encoding="utf-8"))] if config.is_file() else []
    return [Section("How it was made", blocks)] if blocks else []


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {v}" for k, v in value.items()) or "none"
    return " ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
