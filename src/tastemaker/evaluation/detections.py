"""What was seen in pictures, kept as lines of JSON, so that the rules can be asked again without the detector.

line 1   {"about": {"detector", "weights", "colours", "classes", "floor", "pictures", "model"}}
a line   {"file", "prompt", "metadata", "width", "height", "boxes": {class: [[x1, y1, x2, y2, score, colour]]},
         "scores": {reward: value}}, or "error" in the place of boxes where the picture could not be judged
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..data.files import json_lines, read_text
from ..data.prompts import validate_spec
from ..errors import TastemakerError
from ..object_rules import OFFICIAL, Box, Rules, Verdict, judge, kept_by_class
from ..records import Prompt

Boxes = dict[str, list[Box]]  # by class; scores from the finder's floor on


class Finder(Protocol):
    """Pictures in, boxes with their colours out."""

    @property
    def name(self) -> str: ...
    @property
    def colours(self) -> str: ...  # what names colours; empty where nothing does
    @property
    def classes(self) -> frozenset[str]: ...  # what it can find
    @property
    def floor(self) -> float: ...  # boxes of a lower score are not given
    @property
    def weights(self) -> Mapping[str, str]: ...  # name -> sha256
    def find(self, images: Tensor, prompts: Sequence[Prompt]) -> list[Boxes | str]: ...  # or why there are none


@dataclass(frozen=True)
class About:
    """Where detections come from."""

    detector: str
    colours: str
    classes: tuple[str, ...]
    floor: float
    weights: Mapping[str, str] = field(default_factory=dict)
    pictures: int = 0
    model: str = ""


@dataclass(frozen=True)
class Found:
    """One picture. file: as it is named in the results; scores: of rewards; error: why it has no boxes."""

    file: str
    prompt: Prompt
    width: int = 0
    height: int = 0
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


def line_of(found: Found) -> str:
    row: dict[str, Any] = {"file": found.file, "prompt": found.prompt.text, "metadata": found.prompt.spec or {}}
    row |= {"width": found.width, "height": found.height}
    rows = {name: [[b.x1, b.y1, b.x2, b.y2, b.score, b.color] for b in own] for name, own in found.boxes.items()}
    row |= {"error": found.error} if found.error else {"boxes": rows}
    scores = {name: None if math.isnan(value) else value for name, value in found.scores.items()}
    return json.dumps(row | ({"scores": scores} if scores else {}), ensure_ascii=False) + "\n"


def about_line(about: About) -> str:
    return json.dumps({"about": asdict(about)}, ensure_ascii=False) + "\n"


def read_detections(path: str | Path) -> tuple[About, list[Found]]:
    """What `about_line` and `line_of` wrote. Raises TastemakerError naming the line that is none of theirs, and where
    lines are missing at the end."""
    lines = json_lines(read_text(path), str(path))
    about = _about(next(lines, (str(path), None)))
    found = list(_rows(lines))
    if len(found) != about.pictures:
        raise TastemakerError(
            f"{path} tells of {len(found)} pictures, its first line of {about.pictures}: the measurement did not end"
        )
    return about, found


def _about(line: tuple[str, Any]) -> About:
    place, row = line
    try:
        said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row["about"].items()}
        return About(**said)
    except (KeyError, TypeError, AttributeError) as error:
        raise TastemakerError(
            f"{place}: expected the line `about` of a detections.jsonl of `tastemaker evaluate geneval` ({error})"
        ) from None


def _rows(lines: Iterator[tuple[str, Any]]) -> Iterator[Found]:
    for place, row in lines:
        try:
            boxes = {name: [Box(*values) for values in own] for name, own in row.get("boxes", {}).items()}
            scores = {k: math.nan if v is None else float(v) for k, v in row.get("scores", {}).items()}
            prompt = Prompt(row["prompt"], spec=row["metadata"])
            found = Found(row["file"], prompt, row["width"], row["height"], boxes, scores, row.get("error", ""))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TastemakerError(f"{place} is no detection: {type(error).__name__}: {error}") from None
        validate_spec(prompt.spec or {}, place)
        yield found


def require_known(about: About, prompts: Sequence[Prompt], rules: Rules = OFFICIAL) -> None:
    """Raise TastemakerError where the prompts ask for what was not looked for, or the rules for what was not kept: a
    class, a colour or a score that is unknown would count as absent without a word."""
    clauses = [c for p in prompts for part in ("include", "exclude") for c in (p.spec or {}).get(part, ())]
    unknown = sorted({c["class"] for c in clauses} - set(about.classes))
    if unknown:
        raise TastemakerError(
            f"{about.detector} cannot find {', '.join(unknown[:8])}{' ...' if len(unknown) > 8 else ''}; it finds "
            f"{', '.join(sorted(about.classes)[:8])} ... Give prompts that fit by --prompts, such as GenEval's "
            "evaluation_metadata.jsonl for a detector of COCO's classes"
        )
    if not about.colours and any("color" in c for c in clauses):
        raise TastemakerError("the prompts ask for colours, and nothing names them; give --colours clip:FOLDER")
    least = min(rules.threshold, rules.counting_threshold)
    if least < about.floor:
        raise TastemakerError(f"boxes were kept from score {about.floor} on; a threshold of {least} would miss some")


def judged(found: Sequence[Found], rules: Rules = OFFICIAL) -> list[Verdict | None]:
    """None where a picture could not be judged."""
    return [None if row.error else judge(row.boxes, row.prompt.spec or {}, rules) for row in found]


def result_line(found: Found, verdict: Verdict | None, rules: Rules = OFFICIAL) -> str:
    """A line of results.jsonl as the official evaluation writes it; a picture that was not judged is not correct."""
    spec = dict(found.prompt.spec or {})
    kept = {} if found.error else kept_by_class(found.boxes, spec, rules)
    details = {name: [[b.x1, b.y1, b.x2, b.y2, b.score] for b in boxes] for name, boxes in kept.items()}
    row = {
        "filename": found.file,
        "tag": spec.get("tag"),
        "prompt": found.prompt.text,
        "correct": verdict is not None and verdict.correct,
        "reason": f"not judged: {found.error}" if verdict is None else verdict.reason,
        "metadata": json.dumps({**spec, "prompt": found.prompt.text}),
        "details": json.dumps(details),
    }
    return json.dumps(row) + "\n"
