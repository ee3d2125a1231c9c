"""What `tastemaker sample` drew, as questions to people."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

from ..annotate.presets import Settings
from ..annotate.store import NewItem
from ..errors import TastemakerError

LIST = "pictures.jsonl"  # columns file, prompt, seed


def drawn_by(folder: Path) -> dict[tuple[str, int], Path]:
    """(prompt, seed) -> picture."""
    rows = [json.loads(line) for line in (folder / LIST).read_text().splitlines() if line.strip()]
    return {(row["prompt"], int(row["seed"])): folder / row["file"] for row in rows}


def questions(folder: Path, settings: Settings) -> list[NewItem]:
    """Each prompt with its pictures: every two of them where a task shows two, else as many as a task can show.

    Raises TastemakerError where no prompt has two pictures.
    """
    by_prompt: dict[str, list[tuple[int, Path]]] = {}
    for (prompt, seed), picture in drawn_by(folder).items():
        by_prompt.setdefault(prompt, []).append((seed, picture))
    found = [
        NewItem(prompt, [p for _, p in part], prompt, [{"model": folder.name, "seed": seed} for seed, _ in part])
        for prompt, pictures in by_prompt.items()
        for part in shared_out(pictures, settings.most_pictures)
    ]
    if not found:
        raise TastemakerError(
            f"{folder} has one picture of each prompt; draw more with: tastemaker sample --seed 0..3"
        )
    return found


def shared_out(pictures: list, most: int) -> list:
    """Groups of 2 to `most`."""
    if most == 2:
        return list(combinations(pictures, 2))
    parts = [pictures[i : i + most] for i in range(0, len(pictures), most)]
    return [part for part in parts if len(part) > 1]
