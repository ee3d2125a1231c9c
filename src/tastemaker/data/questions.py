"""Questions about what a prompt's pictures should show, from the files that people have. No torch.

| row of a .jsonl, or of the list in a .json | who writes so |
|---|---|
| {"prompt", "questions": ["Is there a dog?", {"question", "answer", "skill"}]} | by hand |
| {"prompt", "vqa_list": [["How many dogs?", "two"], ...], "skills": ["count", ...]} | GenEval 2 |
| {"prompt", "question", "answer", "element_type"}, a row a question | TIFA |
| .csv with `text`, `question_natural_language`, `category_broad`, or `prompt`, `question`, `answer`, `skill` | DSG |

`text` and `caption` stand for `prompt`; an answer that is not given is yes. Rows of one prompt belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TastemakerError, UnknownName
from .datasets import read_table
from .files import json_lines, parse_json, read_text

PROMPT = ("prompt", "text", "caption")
QUESTION = ("question", "question_natural_language")
SKILL = ("skill", "element_type", "category_broad")


@dataclass(frozen=True)
class Question:
    """text: as it is asked. answer: the word that is right. skill: what is tested, to group by."""

    text: str
    answer: str = "yes"
    skill: str = ""


def read_questions(path: str | Path) -> dict[str, list[Question]]:
    """Prompt -> its questions, in the order of the file; a question that is there twice is asked once.

    Raises TastemakerError naming the row that is not valid, UnknownName for a suffix that is not in the table.
    """
    readers = {".jsonl": _lines, ".json": _list, ".csv": _table}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise UnknownName("kind of question file", suffix or str(path), readers, "The suffix says the kind")
    found: dict[str, dict[Question, None]] = {}
    for place, row in readers[suffix](Path(path)):
        if not isinstance(row, Mapping):
            raise TastemakerError(f"{place}: expected an object with a prompt and its questions, got {row!r}")
        prompt = _first(row, PROMPT, place)
        found.setdefault(prompt, {}).update(dict.fromkeys(_questions(row, place)))
    if not found:
        raise TastemakerError(f"{path} holds no questions; expected at least one")
    return {prompt: list(questions) for prompt, questions in found.items()}


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    return json_lines(read_text(path), str(path))


def _list(path: Path) -> Iterable[tuple[str, Any]]:
    rows = parse_json(read_text(path), str(path))
    if not isinstance(rows, list):
        raise TastemakerError(f"{path}: expected a list of rows, got {type(rows).__name__}")
    return [(f"{path} row {i}", row) for i, row in enumerate(rows, 1)]


def _table(path: Path) -> Iterable[tuple[str, Any]]:
    rows, _ = read_table(path)
    return [(f"{path} row {number}", {k: v for k, v in row.items() if v}) for number, row in rows]


def _questions(row: Mapping[str, Any], place: str) -> list[Question]:
    """Of one row, by the first of its forms that is there."""
    if "vqa_list" in row:
        pairs, skills = row["vqa_list"], row.get("skills") or []
        if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
            raise TastemakerError(f"{place} column `vqa_list`: expected [question, answer] pairs, got {pairs!r}")
        skills = [*skills, *[""] * (len(pairs) - len(skills))]
        return [_question({"question": q, "answer": a, "skill": s}, place) for (q, a), s in zip(pairs, skills)]
    if "questions" in row:
        if not isinstance(row["questions"], list) or not row["questions"]:
            raise TastemakerError(f"{place} column `questions`: expected a list, got {row['questions']!r}")
        return [_question({"question": q} if isinstance(q, str) else q, place) for q in row["questions"]]
    return [_question(row, place)]


def _question(row: Any, place: str) -> Question:
    if not isinstance(row, Mapping):
        raise TastemakerError(f"{place}: expected a question or an object with `question`, got {row!r}")
    answer = str(row.get("answer") or "yes").strip()
    skill = next((str(row[name]) for name in SKILL if row.get(name)), "")
    return Question(_first(row, QUESTION, place), answer, skill)


def _first(row: Mapping[str, Any], names: Iterable[str], place: str) -> str:
    names = list(names)
    value = next((row[name] for name in names if name in row), None)
    if not isinstance(value, str) or not value.strip():
        raise TastemakerError(f"{place}: expected words in the column {' or '.join(names)}, got {value!r}")
    return value.strip()
