"""The metrics of a run, one JSON object a line: `{"step": 3, "seconds": 0.2, "loss": 0.7, ...}`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import TastemakerError


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows in the order of their steps; [] where the file is absent. A last line cut short by a crash is left
    out; any other unreadable line raises TastemakerError."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline follows: it was being written
                break
            raise TastemakerError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}") from error
    return rows
