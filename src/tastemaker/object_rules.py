"""GenEval's decision from detections (Ghosh et al. 2023, arXiv 2310.11513), for the world and real pictures alike.

A picture is correct where every `include` clause of the prompt's spec holds and no `exclude` clause is reached. The
reasons are worded as the official evaluation words them. Standard library only; boxes are in pixels with y growing
downward.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import TastemakerError, expect

RELATIONS = ("left of", "right of", "above", "below")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")


@dataclass(frozen=True)
class Rules:
    """The numbers of the decision; the defaults are the official ones. TastemakerError outside their ranges."""

    threshold: float = 0.3
    """a box counts where its score in [0, 1] lies strictly above this"""
    counting_threshold: float = 0.9
    """the same for prompts whose task is counting"""
    position_threshold: float = 0.1
    """share of the summed sizes that an offset has to exceed before it is a relation"""
    max_objects: int = 16
    """boxes of a class that are looked at, best first"""
    max_overlap: float = 1.0
    """a box that overlaps a better one of its class so much (intersection over union) is dropped; 1: none is"""

    def __post_init__(self) -> None:
        for name in ("threshold", "counting_threshold"):
            expect(0 <= getattr(self, name) <= 1, f"{name} in [0, 1]", getattr(self, name))
        expect(self.position_threshold >= 0, "position_threshold of at least 0", self.position_threshold)
        expect(self.max_objects >= 1, "max_objects of at least 1", self.max_objects)
        expect(0 < self.max_overlap <= 1, "max_overlap in (0, 1]", self.max_overlap)

    def least(self, spec: Mapping[str, Any]) -> float:
        """The threshold for the prompt's task."""
        return self.counting_threshold if spec.get("tag") == "counting" else self.threshold


OFFICIAL = Rules()


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
    """correct, the reasons where it is not (a line each), and the share of clauses that hold (in [0, 1])."""

    correct: bool
    reason: str
    satisfied: float


def relations(a: Box, b: Box, margin: float = OFFICIAL.position_threshold) -> set[str]:
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


def overlap(a: Box, b: Box) -> float:
    """Intersection over union; the last pixel of a box belongs to it, so a side is one longer than x2 - x1."""
    inside = Box(max(a.x1, b.x1), max(a.y1, b.y1), min(a.x2, b.x2), min(a.y2, b.y2))
    shared = _area(inside)
    union = _area(a) + _area(b) - shared
    return shared / union if union else 0.0


def _area(box: Box) -> float:
    width, height = box.size
    return max(width + 1, 0) * max(height + 1, 0)


def single(value: float) -> float:
    """The nearest number of single precision, in which detectors score and the official thresholds are compared."""
    return struct.unpack("f", struct.pack("f", value))[0]


def kept(boxes: Sequence[Box], threshold: float, most: int = 16, max_overlap: float = 1.0) -> list[Box]:
    """Boxes with score strictly above the threshold (in single precision), best first, of equal scores the later
    first, the first `most` of them, and of these none that overlaps a kept one by `max_overlap` < 1 or more."""
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i].score, i), reverse=True)
    best = [boxes[i] for i in order if single(boxes[i].score) > single(threshold)][:most]
    if max_overlap >= 1:
        return best
    apart: list[Box] = []
    for box in best:
        if all(overlap(other, box) < max_overlap for other in apart):
            apart.append(box)
    return apart


def kept_by_class(
    detections: Mapping[str, Sequence[Box]], spec: Mapping[str, Any], rules: Rules = OFFICIAL
) -> dict[str, list[Box]]:
    """What the rules look at, without the classes of which nothing is left."""
    least = rules.least(spec)
    found = {name: kept(boxes, least, rules.max_objects, rules.max_overlap) for name, boxes in detections.items()}
    return {name: boxes for name, boxes in found.items() if boxes}


def judge(detections: Mapping[str, Sequence[Box]], spec: Mapping[str, Any], rules: Rules = OFFICIAL) -> Verdict:
    """The verdict on one picture. detections: class -> boxes; spec: see `records.Prompt`.

    Colours and positions are asked of the first `count` boxes alone; a position must hold for every box against every
    box of the clause that it points to, which must come before it: otherwise TastemakerError.
    """
    found = kept_by_class(detections, spec, rules)
    groups: list[list[Box] | None] = []
    reasons = [_include(clause, found, groups, rules.position_threshold) for clause in spec.get("include", ())]
    reasons += [_exclude(clause, found) for clause in spec.get("exclude", ())]
    failed = [r for r in reasons if r]
    return Verdict(not failed, "\n".join(failed), 1 - len(failed) / max(len(reasons), 1))


def _exclude(clause: Mapping[str, Any], found: Mapping[str, list[Box]]) -> str:
    name, number = clause["class"], len(found.get(clause["class"], ()))
    return f"expected {name}<{clause['count']}, found {number}" if number >= clause["count"] else ""


def _include(
    clause: Mapping[str, Any], found: Mapping[str, list[Box]], groups: list[list[Box] | None], margin: float
) -> str:
    """The reason why a clause fails, or nothing; its boxes are appended to `groups`."""
    name, count = clause["class"], clause["count"]
    boxes = found.get(name, [])[:count]
    groups.append(None)
    if len(boxes) < count:
        return f"expected {name}>={count}, found {len(boxes)}"
    reason = _colour(clause, boxes) or _position(clause, boxes, groups, margin)
    groups[-1] = None if reason else boxes
    return reason


def _colour(clause: Mapping[str, Any], boxes: Sequence[Box]) -> str:
    wanted, count = clause.get("color"), clause["count"]
    seen = [str(box.color) for box in boxes]
    if wanted is None or seen.count(wanted) >= count:
        return ""
    order = [*COLOURS, *sorted(set(seen) - set(COLOURS))]
    listed = ", ".join(f"{seen.count(c)} {c}" for c in order if c in seen)
    return f"expected {wanted} {clause['class']}>={count}, found {seen.count(wanted)} {wanted}; and {listed}"


def _position(
    clause: Mapping[str, Any], boxes: Sequence[Box], groups: Sequence[list[Box] | None], margin: float
) -> str:
    if "position" not in clause:
        return ""
    relation, other = clause["position"]
    if other >= len(groups) - 1:
        raise TastemakerError(
            f"the position of {clause['class']} points to entry {other}, which must not come after it"
        )
    targets = groups[other]
    if targets is None:
        return f"no target for {clause['class']} to be {relation}"
    for box in boxes:
        for target in targets:
            if relation not in (held := relations(box, target, margin)):
                seen = " and ".join(sorted(held))
                return f"expected {clause['class']} {relation} target, found {seen} target"
    return ""
