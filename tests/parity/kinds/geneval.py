"""GenEval's official decision on stored boxes and colours: what is kept, verdicts, relations, overlaps, scores.

Two relations of one reason stand in an order that the official code leaves to chance, so they are compared as a set.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

from comparison import Comparison, close, equal

from tastemaker.evaluation.geneval import geneval
from tastemaker.evaluation.of_n import any_of
from tastemaker.object_rules import Box, Rules, judge, kept_by_class, overlap, relations
from tastemaker.records import Prompt

TOLERANCE = 1e-12


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    inputs, expected, config = (
        json.loads((folder / f"{n}.json").read_text()) for n in ("inputs", "expected", "config")
    )
    names = config["option_name_map"]
    official = Rules(**config["default_options"])
    for case, answer in zip(inputs, expected["cases"], strict=True):
        yield from compare_case(case, answer, official, names)
    for i, row in enumerate(expected["relative_position"]):
        held = relations(Box(*row["a"]), Box(*row["b"]))
        yield equal(f"relative_position[{i}]", held, set(row["relations"]))
    for i, row in enumerate(expected["iou"]):
        yield close(f"iou[{i}]", overlap(Box(*row["a"]), Box(*row["b"])), row["iou"], atol=TOLERANCE)
    yield from compare_summary(folder, expected["summary"])


def compare_case(case, answer, rules: Rules, names) -> Iterator[Comparison]:
    own = {names[option]: value for option, value in case["options"].items()}
    rules = Rules(**{**vars(rules), **own})
    found = {name: boxes_of(rows, case["box_colors"].get(name)) for name, rows in case["detections"].items()}
    verdict = judge(found, case["metadata"], rules)
    yield equal(f"{case['id']}/correct", verdict.correct, answer["correct"])
    yield equal(f"{case['id']}/reason", as_words(verdict.reason), as_words(answer["reason"]))
    yield equal(f"{case['id']}/reason_lines", len(verdict.reason.splitlines()), len(answer["reason_lines"]))
    kept = kept_by_class(found, case["metadata"], rules)
    rows = {name: [[b.x1, b.y1, b.x2, b.y2, b.score] for b in boxes] for name, boxes in kept.items()}
    yield equal(f"{case['id']}/kept", rows, answer["kept"])


def boxes_of(rows, colours) -> list[Box]:
    return [Box(*row, color=colour) for row, colour in zip(rows, colours or [None] * len(rows), strict=True)]


def as_words(reason: str) -> list[list[str]]:
    """Line by line, the words in an order of their own, so that "left of and above" is "above and left of"."""
    return [sorted(line.split()) for line in reason.split("\n")]


def compare_summary(folder: pathlib.Path, expected) -> Iterator[Comparison]:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    prompts = [Prompt.from_geneval(json.loads(row["metadata"])) for row in rows]
    correct = [float(row["correct"]) for row in rows]
    found = geneval(prompts, correct)
    yield equal("summary/total_images", found.pooled.count, expected["total_images"])
    yield close("summary/correct_images", found.pooled.value, expected["correct_images"], atol=TOLERANCE)
    yield equal("summary/tasks", set(found.tasks), set(expected["task_scores"]))
    for name, value in expected["task_scores"].items():
        yield close(f"summary/{name}", found.tasks[name].value, value, atol=TOLERANCE)
    yield close("summary/overall", found.overall.value, expected["overall"], atol=TOLERANCE)
    groups: dict[str, list[float]] = {}
    for row, right in zip(rows, correct):
        groups.setdefault(row["metadata"], []).append(right)
    each = [any_of(group, len(group)) for group in groups.values()]
    yield equal("summary/total_prompts", len(each), expected["total_prompts"])
    yield close("summary/correct_prompts", sum(each) / len(each), expected["correct_prompts"], atol=TOLERANCE)
