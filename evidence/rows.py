"""Rows of evidence/results/NAME.json: a claim with its 95 % interval, what the paper says and what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tastemaker.records import Interval
from tastemaker.workflows.configs import plain
from tastemaker.workflows.files import finite, write_json


def row(
    claim: str,
    value: Interval,
    per_seed: Sequence[float],
    seeds: Sequence[int],
    command: str,
    target: float | None = None,
    beside: Mapping[str, Any] | None = None,
    paper: float | None = None,
    unit: str = "fraction",
) -> dict[str, Any]:
    """beside: figures to be read with this one, such as a baseline's."""
    return {
        "claim": claim,
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "count": value.count,
        "per_seed": list(per_seed),
        "paper": paper,
        "target": target,
        "unit": unit,
        "seeds": list(seeds),
        "command": command,
        "version": metadata.version("tastemaker"),
        "beside": plain(beside or {}),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The whole file at once; prints a line per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [finite(dict(r)) for r in rows])
    for r in rows:
        asked = "" if r["target"] is None else f", asked {r['target']}"
        value, low, high = (told(r[name]) for name in ("value", "low", "high"))
        print(f"{r['claim']}: {value} ({low}, {high}){asked}")


def told(value: float | None) -> str:
    """A file has null where a figure is infinite."""
    return "inf" if value is None else f"{value:.4f}"
