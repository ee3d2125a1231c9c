"""What annotators are asked, as plain data: three presets, their settings and their guidelines.

`imagereward` follows the three stages of ImageReward (Xu et al., NeurIPS 2023, appendices A.3 and B): the prompt's
category and problems; three 7-point scales and problem boxes for each picture; all pictures into five slots of at
most two. `pairs` asks which of two pictures is better, `ranking` for an order of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import TastemakerError, UnknownName, expect

Named = tuple[tuple[str, str], ...]  # (name in the records, words on the page)

# the main object of a prompt: the twelve classes of PartiPrompts
CATEGORIES: Named = tuple(
    (words.lower().replace(" ", "_"), words)
    for words in (
        "Abstract",
        "Animals",
        "Artifacts",
        "Arts",
        "Food",
        "Illustrations",
        "Indoor Scenes",
        "Outdoor Scenes",
        "People",
        "Plants",
        "Vehicles",
        "World Knowledge",
    )
)
PROMPT_PROBLEMS: Named = (
    ("sexual", "Sexual content"),
    ("violent", "Violent content"),
    ("defames", "Defames a group"),
    ("personal", "Personal information"),
)
PICTURE_PROBLEMS: Named = (
    ("repeated", "Repeated generation"),
    ("body", "Body problem"),
    ("blurred", "Too blurred"),
    ("discomfort", "Psychological discomfort"),
    ("sexual", "Sexual content"),
    ("violent", "Violent content"),
    ("defames", "Defames a group"),
)
SCALES: tuple[tuple[str, str, Mapping[int, str]], ...] = (
    ("overall", "Overall", {1: "terrible, useless or harmful", 7: "cannot be improved"}),
    ("alignment", "Matches the text", {1: "no described object", 7: "all objects and properties"}),
    (
        "fidelity",
        "Fidelity",
        {1: "an obvious error spoils it", 4: "obvious but harmless error", 7: "no error, beautiful"},
    ),
)
MARKS = range(1, 8)
SKIP_REASONS: Named = (
    ("discomfort", "It makes me uncomfortable"),
    ("expertise", "I do not know enough"),
    ("technical", "The pictures do not load"),
    ("unclear", "The question is unclear"),
)
KINDS = ("pairs", "ranking", "imagereward")
CONSISTENCY = ("warn", "block", "off")


@dataclass(frozen=True)
class Settings:
    """What a project asks and how work is shared out. Shares are in [0, 1]."""

    preset: str = "pairs"
    question: str = "Which picture is better for this text?"
    overlap: int = 1  # how many people answer each item
    lease_seconds: float = 1800.0  # how long an item waits for the person that it was given to
    quota: int = 0  # answers a person may give; 0 is no limit
    skip_limit: int = 20  # skips a person may use
    qualification: int = 0  # test items before the work begins; 0 is no test
    threshold: float = 0.75  # share of test items that must be right
    gold_rate: float = 0.0  # share of hidden test items during the work
    repeat_rate: float = 0.05  # share of answered items that come again in the opposite order
    review: float = 0.0  # share of answers that a reviewer sees
    consistency: str = "warn"  # ratings against ranking: warn, block or off
    slots: int = 5  # of a ranking
    per_slot: int = 2  # pictures that may share a slot

    def __post_init__(self) -> None:
        if self.preset not in KINDS:
            raise UnknownName("preset", str(self.preset), KINDS)
        if self.consistency not in CONSISTENCY:
            raise UnknownName("consistency rule", str(self.consistency), CONSISTENCY)
        for name in ("threshold", "gold_rate", "repeat_rate", "review"):
            expect(0 <= getattr(self, name) <= 1, f"{name} between 0 and 1", getattr(self, name))
        for name in ("quota", "skip_limit", "qualification"):
            expect(getattr(self, name) >= 0, f"{name} of at least 0", getattr(self, name))
        expect(self.overlap >= 1, "an overlap of at least 1", self.overlap)
        expect(self.lease_seconds > 0, "lease_seconds above 0", self.lease_seconds)
        expect(2 <= self.slots <= 9, "2 to 9 slots", self.slots)
        expect(self.per_slot >= 1, "per_slot of at least 1", self.per_slot)

    @property
    def most_pictures(self) -> int:
        return 2 if self.preset == "pairs" else self.slots * self.per_slot

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Raises TastemakerError for a name that is not a setting or a value that does not fit."""
        known = {f.name: f.type for f in fields(cls)}
        return cls(**{k: _as(known, k, v) for k, v in values.items()})

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def _as(known: Mapping[str, Any], name: str, value: Any) -> Any:
    if name not in known:
        raise UnknownName("setting", name, known)
    try:
        return {"int": int, "float": float, "str": str}[known[name]](value)
    except (TypeError, ValueError) as error:
        raise TastemakerError(f"setting `{name}`: expected a value of type {known[name]}, got {value!r}") from error


def preset_settings(preset: str, **changes: Any) -> Settings:
    """The settings that a preset starts from, with changes."""
    if preset not in KINDS:
        raise UnknownName("preset", preset, KINDS)
    return Settings.of({**STARTS[preset], "preset": preset, **changes})


STARTS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "ranking": {"question": "Put the pictures in order, the best first."},
    "imagereward": {"question": "Put the pictures in order, the best first.", "repeat_rate": 0.0},
}

_RULES = """Would you rather receive this picture for this text? That is the question behind every answer.

* A picture that shows what the text asks for is better than one that does not.
* An obvious error, above all in a human body, weighs more than a small departure from the text.
* If one picture is clearly closer to the text and its error is slight, it is the better one.
* Something repeated without reason is a lighter error than a body that is wrong.
* Of two pictures that are equally close, the one that could do more harm is the worse.
* If they are about equal, say so: a tie is a good answer.
* You may look up words, names and artists. A partly understood text is fine; judge what is clear.
* You may skip what makes you uncomfortable. Skips are counted, and there are not endlessly many."""

GUIDELINES: dict[str, str] = {
    "pairs": "# Which picture is better?\n\n" + _RULES,
    "ranking": "# Order the pictures\n\nPut the best picture first. Pictures that are about equal may share a place."
    "\n\n" + _RULES,
    "imagereward": "# Three steps for each text\n\n"
    "1. Say what the text is mainly about and what is wrong with it, if anything.\n"
    "2. Mark each picture from 1 to 7: overall, how well it matches the text, and how free of errors it is. "
    "Overall 1 is terrible, useless or harmful, 7 cannot be improved. Matching 1 is no described object, 7 all "
    "objects and properties. Fidelity 1 is an obvious error that spoils the picture, 4 an obvious but harmless "
    "error, 7 no error and beautiful. Tick the problems that you see.\n"
    "3. Put the pictures in order. The order should agree with your overall marks.\n\n" + _RULES,
}
