"""GenEval's decision from detections (Ghosh et al. 2023, arXiv 2310.11513), for the world and real pictures alike.

A picture is correct where every `include` clause of the prompt's spec holds and no `exclude` clause is reached.
Standard library only; boxes are in pixels with y growing downward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import TastemakerError

RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class Box:
    """One detection. score in [0, 1]; color: the name that a colour classifier gave."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0
    color: str | None = None

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @property
    def size(self) -> tuple[float, float]:
        return self.x2 - self.x1, self.y2 - self.y1


@dataclass(frozen=True)
class Verdict:
    """correct, the reason where it is not, and the share of clauses that hold (partial credit, in [0, 1])."""

    correct: bool
    reason: str
    satisfied: float


def relations(a: Box, b: Box, margin: float = 0.1) -> set[str]:
    """How a lies to b: none, one, or two on a diagonal.

    The offset of the centres, less margin times the summed sizes on each axis, over the length of the full offset,
    must exceed 0.5.
    """
    offset = [p - q for p, q in zip(a.centre, b.centre)]
    reduced = [math.copysign(max(abs(o) - margin * (s + u), 0), o) for o, s, u in zip(offset, a.size, b.size)]
    if all(abs(r) < 1e-3 for r in reduced):
        return set()
    dx, dy = (r / math.hypot(*offset) for r in reduced)
    held = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in held.items() if holds}


def kept(boxes: Sequence[Box], threshold: float, most: int = 16) -> list[Box]:
    """Boxes with score strictly above the threshold, best first, at most `most`; of equal scores the later first."""
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i].score, i), reverse=True)
    return [boxes[i] for i in order if boxes[i].score > threshold][:most]


def judge(
    detections: Mapping[str, Sequence[Box]],
    spec: Mapping[str, Any],
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    margin: float = 0.1,
) -> Verdict:
    """The verdict on one picture. detections: class -> boxes; spec: see `records.Prompt`.

    Counting prompts keep only boxes above counting_threshold. Colours and positions are asked of the first `count`
    boxes alone; a position must hold for every box against every box of the clause that it points to, which must
    come before it: otherwise TastemakerError.
    """
    least = counting_threshold if spec.get("tag") == "counting" else threshold
    found = {name: kept(boxes, least) for name, boxes in detections.items()}
    groups: list[list[Box] | None] = []
    reasons: list[str] = []
    for clause in spec.get("include", ()):
        reason = _include(clause, found, groups, margin)
        reasons.append(reason)
    for clause in spec.get("exclude", ()):
        number = len(found.get(clause["class"], ()))
        reasons.append(
            f"expected {clause['class']}<{clause['count']}, found {number}" if number >= clause["count"] else ""
        )
    failed = [r for r in reasons if r]
    return Verdict(not failed, "; ".join(failed), 1 - len(failed) / max(len(reasons), 1))


def _include(
    clause: Mapping[str, Any], found: Mapping[str, list[Box]], groups: list[list[Box] | None], margin: float
) -> str:
    """The reason why a clause fails, or nothing; its boxes are appended to `groups`."""
    name, count = clause["class"], clause["count"]
    boxes = found.get(name, [])[:count]
    groups.append(None)
    if len(boxes) < count:
        return f"expected {name}>={count}, found {len(boxes)}"
    if "color" in clause:
        colors = [b.color for b in boxes]
        if colors.count(clause["color"]) < count:
            seen = ", ".join(sorted({str(c) for c in colors}))
            return f"expected {clause['color']} {name}>={count}, found {seen}"
    if "position" in clause:
        relation, other = clause["position"]
        if other >= len(groups) - 1:
            raise TastemakerError(f"the position of {name} points to entry {other}, which must not come after it")
        targets = groups[other]
        if targets is None:
            return f"no target for {name} to be {relation}"
        for box in boxes:
            for target in targets:
                if relation not in (held := relations(box, target, margin)):
                    return f"expected {name} {relation} target, found {' and '.join(sorted(held))} target"
    groups[-1] = boxes
    return ""
