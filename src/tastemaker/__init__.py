"""Make image generators better with rewards, and prove it.

The names below are the public door; each is imported when it is first used, so that `import tastemaker` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import MissingExtra, NotDifferentiable, TastemakerError, UnknownName
    from .protocols import Codec, Condition, Draw, Generator, Plan, Reward, State, Verifier
    from .records import Interval, Ledger, Prompt, StepRecord
    from .rewards.table import load_reward
    from .sampling import sample, score
    from .workflows.load import load_generator

_HOMES = {
    "errors": ("MissingExtra", "NotDifferentiable", "TastemakerError", "UnknownName"),
    "protocols": ("Codec", "Condition", "Draw", "Generator", "Plan", "Reward", "State", "Verifier"),
    "records": ("Interval", "Ledger", "Prompt", "StepRecord"),
    "rewards.table": ("load_reward",),
    "sampling": ("sample", "score"),
    "workflows.load": ("load_generator",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Codec",
    "Condition",
    "Draw",
    "Generator",
    "Interval",
    "Ledger",
    "MissingExtra",
    "NotDifferentiable",
    "Plan",
    "Prompt",
    "Reward",
    "State",
    "StepRecord",
    "TastemakerError",
    "UnknownName",
    "Verifier",
    "load_generator",
    "load_reward",
    "sample",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tastemaker' has no attribute '{name}'")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
