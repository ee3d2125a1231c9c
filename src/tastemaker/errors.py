"""What can go wrong by a user's doing. Each message says what was expected, what came, and what to do.

The command line prints these as one sentence and exits with code 2; anything else is our own mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TastemakerError(ValueError):
    """The root of every error that a user can cause and mend."""


def expect(holds: bool, what: str, got: object) -> None:
    """For settings: raise a TastemakerError that says what was expected and what came, unless it holds."""
    if not holds:
        raise TastemakerError(f"expected {what}, got {got}")


class NotDifferentiable(TastemakerError, TypeError):
    """A gradient was asked of something that has none; the message names what to use instead."""


class UnknownName(TastemakerError, KeyError):
    """A name that is not known: a model, a reward, a configuration key, a prompt word."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = ""):
        near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.4)
        listed = f"nearest known: {', '.join(near)}" if near else f"known: {', '.join(sorted(known)[:12])}"
        self.message = f"unknown {kind} '{name}'; {listed}" + (f". {hint}" if hint else "")
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would show the repr
        return self.message


class MissingExtra(TastemakerError, ImportError):
    """A door that needs an optional dependency which is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"this needs the package '{package}'; install it with: pip install 'tastemaker[{extra}]'")
