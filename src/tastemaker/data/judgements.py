"""Files of yes and no about pictures, as Image-Generation-CoT's release has them: `orm.json` and `parm.json`, and
DPO's `dpo*.jsonl` (see chosen.py).

A JSON list, or a line a row, in LLaVA's form: `image`, a path beside the file, and `conversations`, a list of turns
`{"from": "human" | "gpt", "value": ...}` in which `<image>` stands where the picture goes. Which task a row is of,
its field `task` says; else a row of two questions is one of potential, one whose question speaks of a step is one of
clarity, and any other one of the outcome. The prompt is the field `prompt`, else the longest quotation in the
question, else all of it. Rows whose last answer is neither yes nor no are critiques.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TastemakerError
from ..records import Prompt
from .files import json_lines, read_text, write_text

TASKS = ("score", "clear", "potential", "critique")
PICTURE = "<image>"
QUOTED = re.compile(r"[\"\u201c]([^\"\u201d]+)[\"\u201d]|(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'")


@dataclass(frozen=True)
class Judgement:
    """One row. turns: (question, answer), the picture belongs to the first question; task: one of TASKS."""

    image: Path
    prompt: Prompt
    task: str
    turns: tuple[tuple[str, str], ...]

    @property
    def answer(self) -> bool | None:
        """The last answer as yes or no; None of a critique."""
        return {"yes": True, "no": False}.get(self.turns[-1][1].strip().rstrip(".").casefold())


def read_judgements(path: str | Path) -> list[Judgement]:
    """In the order of the file. Raises TastemakerError naming the row that is not in this form, or whose picture is
    not there, and for a file without rows."""
    path = Path(path)
    rows = [_judgement(place, row, path.parent) for place, row in _rows(path)]
    if not rows:
        raise TastemakerError(f"{path} holds no rows; expected a list with `image` and `conversations` in each")
    return rows


def _rows(path: Path) -> list[tuple[str, Any]]:
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return list(json_lines(text, str(path)))
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise TastemakerError(f"{path} is not readable JSON: {error}") from None
    return [(f"{path}, row {k}", row) for k, row in enumerate(listed)]


def _judgement(place: str, row: Any, folder: Path) -> Judgement:
    turns = turns_of(row.get("conversations")) if isinstance(row, Mapping) else ()
    if not turns or not isinstance(row.get("image"), str):
        raise TastemakerError(
            f"{place}: expected `image` and `conversations`, questions of human and answers of gpt in turn, got "
            f"{row!r}"
        )
    image = folder / row["image"]
    if not image.is_file():
        raise TastemakerError(f"{place}: there is no picture {image}")
    task = row.get("task") or task_of(turns)
    if task not in TASKS:
        raise TastemakerError(f"{place}: expected task as one of {', '.join(TASKS)}, got {task!r}")
    return Judgement(image, Prompt(row.get("prompt") or quoted(turns[0][0])), task, turns)


def turns_of(conversations: Any) -> tuple[tuple[str, str], ...]:
    """(question, answer) in turn, without the picture's mark; nothing where the list is not of this form."""
    if not isinstance(conversations, list) or len(conversations) % 2 or not conversations:
        return ()
    turns = []
    for asked, said in zip(conversations[::2], conversations[1::2]):
        try:
            if (asked["from"], said["from"]) != ("human", "gpt"):
                return ()
            turns.append((str(asked["value"]).replace(PICTURE, "").strip(), str(said["value"])))
        except (KeyError, TypeError):
            return ()
    return tuple(turns)


def task_of(turns: Sequence[tuple[str, str]]) -> str:
    """What a row that does not say is about."""
    if turns[-1][1].strip().rstrip(".").casefold() not in ("yes", "no"):
        return "critique"
    return "potential" if len(turns) > 1 else "clear" if re.search(r"\bstep\b", turns[0][0]) else "score"


def quoted(question: str) -> str:
    """The longest quotation, or the whole question."""
    found = [a or b for a, b in QUOTED.findall(question)]
    return max(found, key=len) if found else question


def write_judgements(rows: Sequence[Judgement], path: str | Path) -> None:
    """A JSON list in the release's form, with our `task` and `prompt` beside it; paths as seen from the file."""
    path, out = Path(path), []
    for k, row in enumerate(rows):
        said: list[dict[str, str]] = []
        for i, (question, answer) in enumerate(row.turns):
            said.append({"from": "human", "value": question if i else f"{PICTURE}\n{question}"})
            said.append({"from": "gpt", "value": answer})
        image = os.path.relpath(row.image.absolute(), path.absolute().parent)
        out.append({"id": str(k), "image": image, "task": row.task, "prompt": row.prompt.text, "conversations": said})
    write_text(path, json.dumps(out, indent=1, ensure_ascii=False) + "\n")
