"""Plain nouns that every room shares. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """What a picture should show.

    text: the words handed to the generator.
    label: a class number, for generators conditioned on classes.
    spec: the check in GenEval's metadata format: `tag`, `include` (list of `class`, `count` and, where the
        prompt says so, `color` and `position` = [relation, index of the other entry]), `exclude`.
    """

    text: str
    label: int | None = None
    spec: Mapping[str, Any] | None = None

    def __hash__(self) -> int:
        return hash((self.text, self.label))

    @classmethod
    def of(cls, value: str | Prompt) -> Prompt:
        return value if isinstance(value, Prompt) else cls(text=value)

    @classmethod
    def from_geneval(cls, row: Mapping[str, Any]) -> Prompt:
        """One line of a GenEval metadata file: the row with its `prompt`."""
        return cls(text=row["prompt"], spec={k: v for k, v in row.items() if k != "prompt"})


@dataclass(frozen=True)
class Provenance:
    """Where a score came from, so that it can be made again."""

    model: str
    weight_hash: str = ""
    preprocessing: str = ""


CHOICES = ("a", "b", "tie", "both_bad", "skip")


@dataclass(frozen=True)
class Vote:
    """One person's answer to "which of these two pictures?", as given, for good.

    image_a, image_b: sha256 of the picture files, hex; a is the picture that the record names first, wherever it was
    shown. choice: one of CHOICES. annotator: a pseudonym. about: what else is known, such as shown order,
    milliseconds or guideline version; kept through imports and exports.
    """

    prompt_id: str
    prompt: str
    image_a: str
    image_b: str
    choice: str
    annotator: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rating:
    """One person's mark for one picture on one scale, such as `overall`, `alignment` or `fidelity` from 1 to 7."""

    prompt_id: str
    prompt: str
    image: str
    scale: str
    value: float
    annotator: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """One person's order of the pictures of one prompt. slots: the slot of each picture, 1 best.

    Equal slots are a tie and slots may stay empty, so the number is an order and not a distance."""

    prompt_id: str
    prompt: str
    images: tuple[str, ...]
    slots: tuple[int, ...]
    annotator: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepRecord:
    """What one training step yields: named figures, and pictures worth a look (paths or nothing)."""

    step: int
    values: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval, and how many things it was measured on."""

    value: float
    low: float
    high: float
    count: int

    def verdict(self) -> str:
        """For a difference: `better`, `worse` or `undecided` against zero."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass
class Ledger:
    """The compute that a search or a run has spent."""

    network_evaluations: int = 0  # one picture through the network once
    decoder_calls: int = 0  # pictures decoded
    verifier_calls: int = 0  # answers computed: a picture judged twice counts twice, a remembered answer not at all
    seconds: float = 0.0
    seconds_by_part: dict[str, float] = field(default_factory=dict)
    flops_by_part: dict[str, float] = field(default_factory=dict)  # of this process; a matrix product of n^3 is 2 n^3
    paths: int = 0  # trajectories begun
    pruned: int = 0  # of them cut off on the way
    evaluations_after_pruning: int = 0  # of paths that had been cut off
    unanswered: dict[str, int] = field(default_factory=dict)  # why there was no score, and how often

    def add(self, part: str, seconds: float) -> None:
        self.seconds_by_part[part] = self.seconds_by_part.get(part, 0.0) + seconds
        self.seconds += seconds

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
