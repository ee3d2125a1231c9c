"""Words that several verbs share: seed ranges, lists of names, `CONFIG.yaml key=value ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typer.core import TyperCommand

from ..errors import TastemakerError
from .settings import settings_of

MOST_SEEDS = 1_000_000


def parse_seeds(text: str) -> list[int]:
    """`3`, `0..7` (both ends included) and lists of these, `0..3,10`, as numbers in the order written."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise TastemakerError(f"expected seeds such as 3, 0..7 or 0..3,10 (whole numbers from 0), got '{text}'")
        low, high = int(first), int(last or first)
        if high < low or high - low >= MOST_SEEDS:
            raise TastemakerError(f"the seed range '{part.strip()}' must rise, by less than {MOST_SEEDS:,}")
        seeds += range(low, high + 1)
    return seeds


def names(text: str) -> list[str]:
    """`a,b` as ["a", "b"]."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise TastemakerError(f"expected one or more names separated by commas, got '{text}'")
    return found


def parse_targets(text: str) -> dict[str, float] | None:
    """`preference=0.9,alignment=0.7` as numbers by name; no names where the text is empty, None for `none`."""
    if text.strip() == "none":
        return None
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not name.strip() or number != number or name.strip() in found:
            raise TastemakerError(f"expected levels such as preference=0.9,alignment=0.7, each once, got '{text}'")
        found[name.strip()] = number
    return found


def split_config(words: Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """`[CONFIG.yaml] [key=value ...]` as the file, if any, and the overrides."""
    words = list(words or [])
    path = Path(words.pop(0)) if words and "=" not in words[0] else None
    for word in words:
        if "=" not in word:
            raise TastemakerError(f"expected one CONFIG.yaml and then key=value words, got '{word}'")
    return path, words


class AlgorithmCommand(TyperCommand):
    """A command whose help ends with the settings of the algorithm of its name."""

    def format_help(self, ctx, formatter) -> None:
        super().format_help(ctx, formatter)
        print_settings(str(self.name))


def print_settings(algorithm: str) -> None:
    """name=default, type and sentence of every setting, to standard output."""
    from rich import box
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", min_width=34)
    for s in settings_of(algorithm):
        table.add_row(Text(f"{s.name}={s.default}", "bold cyan"), Text.assemble((s.type, "yellow"), "  ", s.sentence))
    Console().print(
        Panel(table, title="Settings (key=value)", title_align="left", border_style="dim", box=box.ROUNDED)
    )
