"""What is wrong with a picture of the world: which words of its prompt do not hold, and where.

From the detector's boxes and the spec, fact by fact: an object that is not there, a number, a colour, a relation.
Each fact is put to the same rules that judge the whole (object_rules.py). A verifier learns its critique and its
regions from these labels. Regions: the boxes that are wrong; where something is missing, all that no right box
covers.

Letters: G cells a side of the grid of regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..object_rules import Box, judge, kept_by_class
from .grammar import NUMBERS, PLURALS
from .scenes import SIZE

Detections = Mapping[str, Sequence[Box]]


@dataclass(frozen=True)
class Fault:
    """One fact of one clause that does not hold. fact: class, count, color or position."""

    clause: Mapping[str, Any]
    fact: str


def faults_of(detections: Detections, spec: Mapping[str, Any]) -> list[Fault]:
    """In the order of the clauses; none where the picture is correct."""
    found = []
    include = spec.get("include", ())
    for clause in include:
        alone = {"class": clause["class"], "count": 1}
        if not _holds(detections, spec, [alone]):
            found.append(Fault(clause, "class"))
            continue
        number = {"class": clause["class"], "count": clause["count"]}
        more = [{"class": clause["class"], "count": clause["count"] + 1}] if spec.get("tag") == "counting" else []
        if not _holds(detections, spec, [number], more):
            found.append(Fault(clause, "count"))
        if "color" in clause and not _holds(detections, spec, [{**alone, "color": clause["color"]}]):
            found.append(Fault(clause, "color"))
        if "position" in clause and not _related(detections, spec, clause, include):
            found.append(Fault(clause, "position"))
    return found


def share_of_facts(detections: Detections, spec: Mapping[str, Any]) -> float:
    """How much of the prompt holds, in [0, 1]: the mean over its facts, 1 where the picture is correct. A number that
    is wrong counts by how near it is, 1 - |found - asked| / asked, as in Flow-GRPO's reward for GenEval (Liu et al.
    2025, arXiv 2505.05470, section 4.1); of an object that is not there no fact holds, nor a relation to it."""
    wrong, found, worth = faults_of(detections, spec), kept_by_class(detections, spec), []
    missing = any(fault.fact == "class" for fault in wrong)
    for clause in spec.get("include", ()):
        own = {fault.fact for fault in wrong if fault.clause is clause} | ({"position"} if missing else set())
        asked, seen = clause["count"], len(found.get(clause["class"], ()))
        facts = ["class", *(name for name in ("color", "position") if name in clause)]
        facts += ["count"] if asked > 1 or spec.get("tag") == "counting" else []
        near = {"count": max(0.0, 1 - abs(seen - asked) / asked)} if "class" not in own else {}
        worth += [near.get(fact, 0.0) if own & {fact, "class"} else 1.0 for fact in facts]
    return sum(worth) / len(worth)


def _holds(detections: Detections, spec: Mapping[str, Any], include: list, exclude: Sequence[Any] = ()) -> bool:
    return judge(detections, {"tag": spec.get("tag"), "include": include, "exclude": list(exclude)}).correct


def _related(detections: Detections, spec: Mapping[str, Any], clause: Mapping[str, Any], include: Sequence) -> bool:
    """The relation; where its other object is missing, that is the fault, and not the relation."""
    relation, other = clause["position"]
    target = {"class": include[other]["class"], "count": 1}
    if not _holds(detections, spec, [target]):
        return True
    return _holds(detections, spec, [target, {"class": clause["class"], "count": 1, "position": [relation, 0]}])


def wrong_words(faults: Sequence[Fault], words: Sequence[str]) -> list[bool]:
    """For each word of the prompt whether it does not hold."""
    wrong = {word for fault in faults for word in _words(fault)}
    return [word in wrong for word in words]


def _words(fault: Fault) -> list[str]:
    name = fault.clause["class"]
    if fault.fact == "class":
        return [name, PLURALS[name]]
    if fault.fact == "count":
        return [NUMBERS.get(fault.clause["count"], "")]
    if fault.fact == "color":
        return [fault.clause["color"]]
    return [word for word in str(fault.clause["position"][0]).split() if word != "of"]


def wrong_regions(
    faults: Sequence[Fault], detections: Detections, spec: Mapping[str, Any], side: int, size: int = SIZE
) -> Tensor:
    """(G, G) bool, rows from the top: cells whose middle is at fault."""
    found = kept_by_class(detections, spec)
    middle = (torch.arange(side) + 0.5) * size / side
    wrong, missing = [], False
    for fault in faults:
        boxes = found.get(fault.clause["class"], [])
        missing |= fault.fact == "class" or (fault.fact == "count" and len(boxes) < fault.clause["count"])
        colour = fault.clause.get("color") if fault.fact == "color" else None
        wrong += [box for box in boxes if colour is None or box.color != colour]
    if not faults:
        return torch.zeros(side, side, dtype=torch.bool)
    asked = {clause["class"] for clause in spec.get("include", ())}
    strangers = [box for name, boxes in found.items() if name not in asked for box in boxes]
    wrong += strangers
    right = [b for name, boxes in found.items() if name in asked for b in boxes if b not in wrong]
    if missing and not strangers:
        return ~_covered(right, middle) if not _covered(right, middle).all() else ~torch.zeros(side, side).bool()
    return _covered(wrong, middle)


def _covered(boxes: Sequence[Box], middle: Tensor) -> Tensor:
    """(G, G) bool: the middle of the cell is in a box."""
    out = torch.zeros(len(middle), len(middle), dtype=torch.bool)
    for box in boxes:
        inside_x = (middle >= box.x1) & (middle <= box.x2)
        out |= ((middle >= box.y1) & (middle <= box.y2))[:, None] & inside_x[None]
    return out
