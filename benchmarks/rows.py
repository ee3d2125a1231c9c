"""benchmarks/results.json: a list of rows, one per name, written by the command that measured it."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

FILE = pathlib.Path(__file__).with_name("results.json")
KEYS = ("name", "ours", "other", "other_is", "ratio", "target", "unit", "command")


def write(file: pathlib.Path = FILE, **row: Any) -> None:
    """Replace the row of the same name, or add it, and print it. Raises KeyError where a key is not one of KEYS."""
    if set(row) != set(KEYS):
        raise KeyError(f"a row has exactly the keys {', '.join(KEYS)}; got {', '.join(row)}")
    rows = json.loads(file.read_text()) if file.exists() else []
    rows = sorted([r for r in rows if r["name"] != row["name"]] + [row], key=lambda r: r["name"])
    part = file.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1) + "\n")
    os.replace(part, file)
    print(f"{row['name']}: ours {row['ours']:.4g}, other {row['other']:.4g} {row['unit']} ({row['other_is']}), "
          f"ratio {row['ratio']:.3g}, target {row['target']}")  # fmt: skip
