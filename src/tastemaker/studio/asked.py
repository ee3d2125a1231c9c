"""What the studio's page asks for, and what draws it: plain values, so that the server knows nothing of networks."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import TastemakerError

MOST_PICTURES = 16  # as many as `tastemaker sample` draws at a time, so that both draw the same
Level = Annotated[float, Field(ge=0, le=1)]
Stopped = Callable[[], bool]  # whether nobody waits for the pictures any more


class Setting(BaseModel):
    """levels: by reward; one that is not named is not asked for. w: of v+ + w (v+ - v-), where guidance g is w + 1.
    caption: of the other branch, v-; own: as the model has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
    prompt: str = Field(min_length=1, max_length=500)
    seed: int = Field(default=0, ge=0, lt=2**31)  # of the first picture; the others follow
    pictures: int = Field(default=4, ge=1, le=MOST_PICTURES)
    levels: Mapping[str, Level] = Field(default_factory=dict)
    w: float = Field(default=2.0, ge=0, le=30)
    caption: Literal["own", "kept", "emptied"] = "own"

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.pictures)


class Sweep(BaseModel):
    """Two rewards against each other, with one seed: the first falls from 1 to 0 while the second rises."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    first: str
    second: str
    count: int = Field(default=7, ge=2, le=11)

    def levels(self) -> list[dict[str, float]]:
        """`count` pairs of levels."""
        places = [round(k / (self.count - 1), 4) for k in range(self.count)]
        return [{self.first: round(1 - p, 4), self.second: p} for p in places]


@dataclass(frozen=True)
class Drawn:
    """A picture as PNG, with the levels that it was asked for. scores: as measured, None where there is none;
    reached: their levels on the model's scale, where they have one."""

    png: bytes
    seed: int
    levels: Mapping[str, float]
    scores: Mapping[str, float | None]
    reached: Mapping[str, float | None]


@dataclass(frozen=True)
class Look:
    """What was drawn in how many seconds. notes: sentences on what could not be measured."""

    pictures: tuple[Drawn, ...]
    seconds: float
    notes: tuple[str, ...] = field(default=())


class Superseded(Exception):
    """Nobody waits for these pictures any more."""


class Engine(Protocol):
    """What draws. Both verbs raise Superseded as soon as they see `stopped()`, TastemakerError for what the user can
    mend."""

    name: str  # of the model, as the command line takes it

    def about(self) -> dict[str, Any]: ...
    def draw(self, setting: Setting, stopped: Stopped) -> Look: ...
    def sweep(self, setting: Setting, sweep: Sweep, stopped: Stopped) -> Look: ...


M = TypeVar("M", bound=BaseModel)


def read(kind: type[M], said: Any) -> M:
    """Raises TastemakerError that names the first value which does not fit."""
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or kind.__name__.lower()
        raise TastemakerError(f"{place}: {first['msg'].lower()}, got {first['input']!r:.80}") from error


def command(model: str, setting: Setting) -> str:
    """The line that draws the same pictures."""
    wished = ",".join(f"{name}={level:g}" for name, level in setting.levels.items())
    words = ["tastemaker", "sample", model, "--prompt", setting.prompt]
    words += ["--seed", f"{setting.seed}..{setting.seeds[-1]}" if setting.pictures > 1 else str(setting.seed)]
    words += ["--targets", wished or "none", "--guidance", repr(1 + setting.w)]
    words += {"emptied": ["--empty-negative"], "kept": ["--keep-caption"]}.get(setting.caption, []) if wished else []
    return shlex.join([*words, "--out", "samples"])
