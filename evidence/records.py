"""The record of a finished run, by which it is not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tastemaker.workflows.configs import plain
from tastemaker.workflows.files import finite, write_json


def recorded(file: Path, run: str, told: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds where it was made with the same `told`, plain values; else made now and written, with its
    seconds."""
    if file.is_file() and (found := json.loads(file.read_text())).items() >= told.items():
        return found
    began = time.time()
    made = finite(plain({"run": run, **told, **make()}))
    write_json(file, {**made, "seconds": round(time.time() - began)})
    print(f"{run}: {time.time() - began:.0f} s", flush=True)
    return json.loads(file.read_text())
