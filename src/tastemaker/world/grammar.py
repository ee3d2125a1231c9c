"""What the emoji world can say: objects, colours, relations, and GenEval's six tasks as prompts with their checks.

A spec is a row of GenEval's metadata format, so `object_rules.judge` decides here as it does on real pictures.
Everything follows from an integer seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import TastemakerError
from ..object_rules import RELATIONS
from ..randomness import mix, stream
from ..records import Prompt

_NAMES = (
    "apple banana butterfly car cat chair clock crown cup dog fish guitar house key mushroom rocket tree umbrella"
)
OBJECTS = tuple(_NAMES.split())
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS = {name: name + "s" for name in OBJECTS} | {"butterfly": "butterflies", "fish": "fishes"}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase(clause: Mapping[str, Any]) -> str:
    """`a red cat`, `three cats`."""
    color = clause["color"] + " " if "color" in clause else ""
    if clause["count"] > 1:
        return f"{NUMBERS[clause['count']]} {color}{PLURALS[clause['class']]}"
    return article(color + clause["class"])


def prompt_of(spec: Mapping[str, Any]) -> Prompt:
    """The words for a spec."""
    first, *others = spec["include"]
    text = phrase(first)
    if others and "position" in others[0]:
        text = f"{phrase(others[0])} {others[0]['position'][0]} {text}"
    elif others:
        text = f"{text} and {phrase(others[0])}"
    return Prompt(f"a photo of {text}", spec=spec)


def single_object(rng: np.random.Generator) -> dict[str, Any]:
    return {"include": [{"class": _object(rng), "count": 1}]}


def two_object(rng: np.random.Generator) -> dict[str, Any]:
    return {"include": [{"class": name, "count": 1} for name in _pair(rng)]}


def counting(rng: np.random.Generator) -> dict[str, Any]:
    name, count = _object(rng), int(rng.integers(2, 5))
    return {"include": [{"class": name, "count": count}], "exclude": [{"class": name, "count": count + 1}]}


def colors(rng: np.random.Generator) -> dict[str, Any]:
    return {"include": [{"class": _object(rng), "count": 1, "color": str(rng.choice(COLORS))}]}


def position(rng: np.random.Generator) -> dict[str, Any]:
    target, name = _pair(rng)
    relation = str(rng.choice(RELATIONS))
    return {
        "include": [{"class": target, "count": 1}, {"class": name, "count": 1, "position": [relation, 0]}],
    }


def color_attr(rng: np.random.Generator) -> dict[str, Any]:
    hues = rng.choice(COLORS, 2, replace=False)
    return {"include": [{"class": n, "count": 1, "color": str(c)} for n, c in zip(_pair(rng), hues)]}


_MAKERS = dict(zip(TASKS, (single_object, two_object, counting, colors, position, color_attr)))


def spec_of(seed: int, task: str | None = None) -> dict[str, Any]:
    """A spec of the task, or of one drawn evenly."""
    rng = stream(seed, purpose="spec")
    task = task or TASKS[int(rng.integers(len(TASKS)))]
    return {"tag": task} | _MAKERS[task](rng)


def evaluation_prompts(per_task: int, seed: int = 0) -> list[Prompt]:
    """Distinct prompts, up to per_task of each task (the world has 18 single objects), grouped by task."""
    chosen: list[Prompt] = []
    for task in TASKS:
        found: dict[str, Prompt] = {}
        for k in range(per_task * 40):
            prompt = prompt_of(spec_of(seed * 1_000_003 + k, task))
            found.setdefault(prompt.text, prompt)
            if len(found) == per_task:
                break
        chosen += found.values()
    return chosen


def evaluated_prompts() -> list[Prompt]:
    """Those that a training leaves out: the evaluation's first 30 of each task. With more of them no prompt that
    counts would be left, of which there are 54."""
    return evaluation_prompts(30)


def texts_but_single_objects(prompts: Sequence[Prompt]) -> set[str]:
    """What can be kept apart: of single objects there are 18, which everybody meets."""
    return {p.text for p in prompts if (p.spec or {}).get("tag") != "single_object"}


def even_prompts(
    count: int, seed: int, without: Sequence[Prompt] = (), held_out: float = 0.0
) -> tuple[list[Prompt], list[Prompt]]:
    """About `count` prompts, as many of each task, in two parts that share no words: the second gets the share
    `held_out` of them. Those of `without` are left out, but for single objects. A task with fewer prompts than its
    part of `count` has them several times. Raises TastemakerError where a task has no prompt for one of the parts."""
    left_out = texts_but_single_objects(without)
    parts: tuple[list[Prompt], list[Prompt]] = ([], [])
    for task in TASKS:
        drawn = (prompt_of(spec_of(mix(seed, k), task)) for k in range(4 * count))
        found = list({p.text: p for p in drawn if p.text not in left_out}.values())
        wanted = max(1, count // len(TASKS))
        last = max(1, round(held_out * min(wanted, len(found)))) if held_out else 0
        if last >= len(found):
            raise TastemakerError(f"all but {len(found)} of the prompts of '{task}' are left out; leave out fewer")
        second = max(1, round(held_out * wanted)) if held_out else 0
        for part, own, size in zip(parts, (found[last:], found[:last]), (max(1, wanted - second), second)):
            part.extend(own[k % len(own)] for k in range(size))
    return parts


def swapped(spec: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The spec with one fact changed: an object, a count, a colour, a relation or the two colours of a pair."""
    rng = stream(seed, purpose="swap")
    clauses = [dict(c) for c in spec["include"]]
    at = int(rng.integers(len(clauses)))
    clause = clauses[at]
    facts = [f for f in ("class", "count", "color", "position") if f != "count" or spec["tag"] == "counting"]
    fact = str(rng.choice([f for f in facts if f in clause]))
    if fact == "class":
        clause["class"] = _other(rng, OBJECTS, [c["class"] for c in clauses])
    elif fact == "count":
        clause["count"] = int(_other(rng, [2, 3, 4], [clause["count"]]))
    elif fact == "color" and len(clauses) == 2 and rng.random() < 0.5:
        clauses[0]["color"], clauses[1]["color"] = clauses[1]["color"], clauses[0]["color"]
    elif fact == "color":
        clause["color"] = _other(rng, COLORS, [c.get("color") for c in clauses])
    else:
        relation = clause["position"][0]
        clause["position"] = [OPPOSITE[relation] if rng.random() < 0.6 else _other(rng, RELATIONS, [relation]), 0]
    exclude = [{"class": c["class"], "count": c["count"] + 1} for c in clauses] if spec["tag"] == "counting" else []
    return {"tag": spec["tag"], "include": clauses} | ({"exclude": exclude} if exclude else {})


def vocabulary() -> list[str]:
    """Every word that a prompt of the world can hold, sorted."""
    words = ["a", "an", "photo", "of", "and", *OBJECTS, *PLURALS.values(), *COLORS, *NUMBERS.values()]
    return sorted({w for word in [*words, *RELATIONS] for w in word.split()})


def _object(rng: np.random.Generator) -> str:
    return OBJECTS[int(rng.integers(len(OBJECTS)))]


def _pair(rng: np.random.Generator) -> list[str]:
    return [str(n) for n in rng.choice(OBJECTS, 2, replace=False)]


def _other(rng: np.random.Generator, among: Any, taken: Any) -> Any:
    return rng.choice(np.array([a for a in among if a not in taken])).item()
