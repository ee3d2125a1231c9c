"""ImageReward's file of rankings (Xu et al. 2023, the repository's data/test.json): a JSON list with, per prompt,
`id`, `prompt`, `generations` (paths) and `ranking` (slots, 1 best, equal is a tie, gaps allowed).

A prompt has one ranking there, so several people's answers are aggregated (see `tastemaker.data.aggregate`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...records import Ranking
from ..aggregate import one_ranking_per_prompt
from ..files import write_text
from ..votes import Votes, prompts_of
from .pictures import Shelf, columns_kept, copy_pictures, file_names, keep_columns
from .rows import Row, as_json, prompt_id_of, read_rows

KNOWN = ("id", "prompt", "generations", "ranking")


def fits(columns: set[str]) -> bool:
    return {"generations", "ranking"} <= columns


def read(path: Path) -> Votes:
    with Shelf(path) as shelf:
        rankings = tuple(_ranking(row, shelf) for row in read_rows(path))
        return Votes(rankings=rankings, pictures=shelf.found, prompts=prompts_of(rankings), folder=path.parent)


def _ranking(row: Row, shelf: Shelf) -> Ranking:
    prompt, files = row.text("prompt"), row.listed("generations", str)
    slots = row.listed("ranking", int, len(files))
    if min(slots) < 1:
        raise row.bad("ranking", "slots counted from 1, the best")
    images, about = shelf.names(files)
    about = keep_columns(about, row.rest(KNOWN))
    return Ranking(row.text("id", prompt_id_of(prompt)), prompt, images, tuple(slots), about=about)


def write(votes: Votes, folder: Path) -> list[Path]:
    rows = [_row(votes, ranking) for ranking in one_ranking_per_prompt(votes)]
    text = as_json(rows, "imagereward.json")
    copy_pictures(votes, folder)
    write_text(folder / "imagereward.json", text)
    return [folder / "imagereward.json"]


def _row(votes: Votes, ranking: Ranking) -> dict[str, Any]:
    files, slots = file_names(votes, ranking), list(ranking.slots)
    row = {"id": ranking.prompt_id, "prompt": ranking.prompt, "generations": files, "ranking": slots}
    return {**row, **columns_kept(ranking)}
