"""HPDv2's two files (Wu et al. 2023, arXiv 2306.09341; the repository's README), JSON lists:

| file | a row is | columns |
|---|---|---|
| train.json | a choice between two pictures | prompt, file_path, human_preference (1 for the better, else 0) |
| test.json | a set of pictures ranked by several people | prompt, image_path, rank, raw_annotations |

`rank` is that of the average, smaller is better; `raw_annotations` has `rank` and `user_hash` of each person.
`image_path` and `file_path` are read alike. Choices become votes (annotator: `user_hash`, where a row has one), each
person's rank a ranking. A tie is written as [0.5, 0.5]; "both bad" and skips stay in the raw file alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...records import Ranking, Vote
from ..aggregate import one_ranking_per_prompt
from ..files import write_text
from ..votes import Votes, prompts_of
from .pictures import Shelf, columns_kept, copy_pictures, file_names, keep_columns
from .rows import Row, as_json, prompt_id_of, read_rows

KNOWN = ("prompt_id", "prompt", "file_path", "image_path", "human_preference", "rank", "raw_annotations", "user_hash")
CHOICE = {(1, 0): "a", (0, 1): "b", (0.5, 0.5): "tie"}
PREFERENCE = {"a": [1, 0], "b": [0, 1], "tie": [0.5, 0.5]}


def fits(columns: set[str]) -> bool:
    return "human_preference" in columns or {"image_path", "rank"} <= columns


def read(path: Path) -> Votes:
    votes: list[Vote] = []
    rankings: list[Ranking] = []
    with Shelf(path) as shelf:
        for row in read_rows(path):
            if "human_preference" in row.values:
                votes.append(_vote(row, shelf))
            else:
                rankings += _rankings(row, shelf)
        prompts = prompts_of([*votes, *rankings])
        return Votes(tuple(votes), (), tuple(rankings), shelf.found, prompts, path.parent)


def _files(row: Row, count: int | None = None) -> list[str]:
    return row.listed("file_path" if "file_path" in row.values else "image_path", str, count)


def _vote(row: Row, shelf: Shelf) -> Vote:
    prompt, images = row.text("prompt"), _files(row, 2)
    value = row.values["human_preference"]
    given = tuple(value) if isinstance(value, list) and all(isinstance(v, int | float) for v in value) else ()
    if given not in CHOICE:
        raise row.bad("human_preference", "[1, 0], [0, 1] or [0.5, 0.5]")
    (a, b), about = shelf.names(images)
    about = keep_columns(about, row.rest(KNOWN))
    prompt_id = row.text("prompt_id", prompt_id_of(prompt))
    return Vote(prompt_id, prompt, a, b, CHOICE[given], row.text("user_hash", ""), about)


def _rankings(row: Row, shelf: Shelf) -> list[Ranking]:
    """One for each person, who all keep what the file says of the average; that alone where nobody is listed."""
    prompt, files = row.text("prompt"), _files(row)
    prompt_id, average = row.text("prompt_id", prompt_id_of(prompt)), row.values.get("rank")
    names, about = shelf.names(files)
    about = keep_columns(about, row.rest(KNOWN))
    people = row.values.get("raw_annotations") or []
    if not isinstance(people, list) or not all(isinstance(p, dict) for p in people):
        raise row.bad("raw_annotations", "a list of objects with rank and user_hash")
    if not people:
        return [Ranking(prompt_id, prompt, names, tuple(row.listed("rank", int, len(files))), about=about)]
    if average is not None:
        about["rank"] = row.listed("rank", int, len(files))
    persons = [Row(f"{row.place} raw_annotations[{i}]", person) for i, person in enumerate(people)]
    return [
        Ranking(
            prompt_id,
            prompt,
            names,
            tuple(p.listed("rank", int, len(files))),
            str(p.values.get("user_hash") or ""),
            about,
        )
        for p in persons
    ]


def write(votes: Votes, folder: Path) -> list[Path]:
    """train.json for votes and test.json for rankings; each only if there is something to write in it."""
    files = {
        "train.json": [_choice(votes, v) for v in votes.votes if v.choice in PREFERENCE],
        "test.json": [_ranked(votes, listed) for listed in _sets(votes)],
    }
    texts = {name: as_json(rows, name) for name, rows in files.items() if rows}
    copy_pictures(votes, folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _own_id(prompt_id: str, prompt: str) -> dict[str, str]:
    return {} if prompt_id == prompt_id_of(prompt) else {"prompt_id": prompt_id}


def _choice(votes: Votes, vote: Vote) -> dict[str, Any]:
    row = {"prompt": vote.prompt, "file_path": file_names(votes, vote), "human_preference": PREFERENCE[vote.choice]}
    person = {"user_hash": vote.annotator} if vote.annotator else {}
    return {**row, **person, **_own_id(vote.prompt_id, vote.prompt), **columns_kept(vote)}


def _sets(votes: Votes) -> list[list[Ranking]]:
    """Rankings of the same pictures of the same prompt, in the order of first mention."""
    found: dict[tuple[str, frozenset[str]], list[Ranking]] = {}
    for ranking in votes.rankings:
        found.setdefault((ranking.prompt_id, frozenset(ranking.images)), []).append(ranking)
    return list(found.values())


def _ranked(votes: Votes, listed: Sequence[Ranking]) -> dict[str, Any]:
    first = listed[0]
    people = [{"rank": _in_order_of(first, r), "user_hash": r.annotator} for r in listed]
    raw = {"raw_annotations": people} if len(listed) > 1 or first.annotator else {}
    row = {"prompt": first.prompt, "image_path": file_names(votes, first), "rank": _average(listed), **raw}
    return {**row, **_own_id(first.prompt_id, first.prompt), **columns_kept(first)}


def _average(listed: Sequence[Ranking]) -> list[int]:
    """What the file that they came from said, as long as all say the same; else by the share of comparisons won."""
    kept = listed[0].about.get("rank")
    if kept and all(r.about.get("rank") == kept for r in listed):
        return list(kept)
    return _in_order_of(listed[0], one_ranking_per_prompt(Votes(rankings=tuple(listed)))[0])


def _in_order_of(first: Ranking, other: Ranking) -> list[int]:
    if other.images == first.images:
        return list(other.slots)
    slots = dict(zip(other.images, other.slots))
    return [slots[image] for image in first.images]
