"""From `result.json` to sections. The mapping that is read:

    {"summary": "one sentence",                                       # optional
     "base":      {"label": "Base",                                   # optional
                   "geneval": {"overall": INTERVAL, "colors": INTERVAL, ...},
                   "rewards": {"preference": INTERVAL, ...},
                   "frechet": {"tiny-clip": INTERVAL or number, ...},  # any other group of figures likewise
                   "network_evaluations": 1600, "seconds": 12.5},      # other numbers: the compute table
     "refl":      {...}, "best_of_8": {...},                           # the first contender is the one compared with
     "differences": {"refl": {"geneval": {"overall": INTERVAL}, "frechet": {...}}, "best_of_8": {...}},
     "pictures": [{"prompt": "a red apple", "seed": 3,
                   "files": {"base": "samples/base-000.png", ...}, "correct": {"base": false, ...}}],
     "figures": [{"file": "pareto.png", "caption": "what it shows"}],
     "next": [{"text": "a sentence", "command": "what to type", "address": "http://... while it runs, or left out"}]}

INTERVAL is {"value", "low", "high", "count"}. Differences are new minus base on the same prompts and seeds; for the
groups in LESS_IS_BETTER a negative one is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..records import Interval
from .figures import Bars
from .page import Block, Section, Step, Text, Tile, Tiles
from .pictures import Picture, PictureGrid, PictureRow
from .tables import Cell, Difference, Table, number

LESS_IS_BETTER = ("frechet", "kernel_distance", "over_floor", "drift")
RESERVED = ("differences", "pictures", "figures", "summary", "title", "next")
DRAWING = 1600  # pixels, the longest side of a drawing
NAMES = {
    "refl": "ReFL", "frechet": "Fréchet distance", "geneval": "GenEval", "dpo": "DPO", "prdc": "Precision and recall",
    "kernel_distance": "Kernel distance", "over_floor": "Over the floor of real against real",
}  # fmt: skip


def name_of(key: str) -> str:
    return NAMES.get(key) or key[:1].upper() + key[1:].replace("_", " ")


def contenders(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries that were measured, in the order of the file."""
    entries = {k: v for k, v in result.items() if k not in RESERVED and isinstance(v, Mapping)}
    return {k: v for k, v in entries.items() if any(_is_group(group) for group in v.values())}


def _label(key: str, entry: Mapping[str, Any]) -> str:
    return str(entry.get("label", name_of(key)))


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_figure(v) is not None for v in value.values())


def _figure(value: Any) -> Interval | float | None:
    """An interval where there is one, a bare number otherwise."""
    if isinstance(value, Mapping):
        parts = [value.get(k) for k in ("value", "low", "high")]
        return None if None in parts else Interval(*map(float, parts), int(value.get("count", 0)))  # type: ignore
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def sections_of(result: Mapping[str, Any], folder: Path) -> list[Section]:
    """Every section that this result has something for. folder: where the paths in `pictures` begin."""
    made = [
        Section("Result", _headline(result)),
        Section("Drawings", _drawings(result, folder)),
        Section("Pictures", _pictures(result, folder)),
        Section("Figures", _figures(result)),
        Section("Compute", _compute(result)),
        Section("Next", [Step(**step) for step in result.get("next", ())]),
    ]
    return [section for section in made if section.blocks]


def _difference(result: Mapping[str, Any], contender: str, group: str, figure: str) -> Difference | None:
    value = result.get("differences", {}).get(contender, {}).get(group, {}).get(figure)
    interval = _figure(value)
    return Difference(interval, group in LESS_IS_BETTER) if isinstance(interval, Interval) else None


def _headline(result: Mapping[str, Any]) -> list[Block]:
    """The first figure of the first group, a tile per contender, and one sentence per comparison."""
    entries = contenders(result)
    if not entries:
        return [Text(str(result["summary"]))] if result.get("summary") else []
    group = next(g for g, v in next(iter(entries.values())).items() if _is_group(v))
    figure = next(iter(next(iter(entries.values()))[group]))
    tiles, sentences = [], [str(result["summary"])] if result.get("summary") else []
    for key, entry in entries.items():
        difference = _difference(result, key, group, figure)
        value = _figure(entry.get(group, {}).get(figure))
        if value is not None:
            tiles.append(Tile(f"{_label(key, entry)} · {name_of(group)} {figure}", value, difference))
        sentences += [_sentence(_label(key, entry), entries, difference)] if difference else []
    return [Tiles(tiles), Text("\n".join(sentences))]


def _sentence(label: str, entries: Mapping[str, Mapping[str, Any]], difference: Difference) -> str:
    base = _label(*next(iter(entries.items())))
    interval, verdict = difference.interval, difference.verdict()
    words = {"better": f"is better than {base}", "worse": f"is worse than {base}"}
    said = words.get(verdict, f"and {base} cannot be told apart")
    pairs = f" on {number(interval.count)} pairs" if interval.count else ""
    return (
        f"{label} {said}: difference {number(interval.value, sign=True)}, 95 % interval "
        f"[{number(interval.low)}, {number(interval.high)}]{pairs}."
    )


def _pictures(result: Mapping[str, Any], folder: Path) -> list[Block]:
    entries = contenders(result)
    rows = []
    for row in result.get("pictures", ()):
        right = row.get("correct", {})
        made = [
            Picture(folder / file, _label(key, entries.get(key, {})), right.get(key))
            for key, file in row["files"].items()
        ]
        rows.append(PictureRow(row["prompt"], made, row.get("seed")))
    caption = "The same prompt and seed in every card."
    if any(row.get("correct") for row in result.get("pictures", ())):
        caption += " ✓ shows what was asked, ✗ does not, by the object check."
    return [PictureGrid(rows, caption)] if rows else []


def _drawings(result: Mapping[str, Any], folder: Path) -> list[Block]:
    drawn = result.get("figures", ())
    rows = [PictureRow(one["caption"], [Picture(folder / one["file"], longest=DRAWING)]) for one in drawn]
    return [PictureGrid(rows, large=True)] if rows else []


def _figures(result: Mapping[str, Any]) -> list[Block]:
    entries = contenders(result)
    if not entries:
        return []
    groups = list(dict.fromkeys(g for e in entries.values() for g, v in e.items() if _is_group(v)))
    bars = _bars(entries, groups[0])
    drawn: list[Block] = [Bars(bars, f"{name_of(groups[0])}, with 95 % intervals.")] if bars else []
    return [*drawn, *(_table(result, entries, group) for group in groups)]


def _bars(entries: Mapping[str, Mapping[str, Any]], group: str) -> dict[str, dict[str, Interval]]:
    """What has an interval, by figure and then by contender."""
    bars: dict[str, dict[str, Interval]] = {}
    for key, entry in entries.items():
        for figure, value in entry.get(group, {}).items():
            if isinstance(interval := _figure(value), Interval):
                bars.setdefault(figure.replace("_", " "), {})[_label(key, entry)] = interval
    return bars


def _table(result: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], group: str) -> Table:
    compared = [k for k in entries if result.get("differences", {}).get(k, {}).get(group)]
    base = _label(*next(iter(entries.items())))
    heads = [name_of(group), *(_label(k, e) for k, e in entries.items())]
    heads += [f"{_label(k, entries[k])} − {base}" for k in compared]
    rows: list[list[Cell]] = []
    for figure in dict.fromkeys(f for e in entries.values() for f in e.get(group, {})):
        values = [_figure(e.get(group, {}).get(figure)) for e in entries.values()]
        rows.append([figure.replace("_", " "), *values, *(_difference(result, k, group, figure) for k in compared)])
    direction = "Less is better." if group in LESS_IS_BETTER else "More is better."
    return Table(heads, rows, f"{direction} 95 % intervals in brackets.")


def _compute(result: Mapping[str, Any]) -> list[Block]:
    entries = contenders(result)
    kinds = list(dict.fromkeys(k for e in entries.values() for k, v in e.items() if _figure(v) is not None))
    rows = [[_label(k, e), *(_figure(e.get(kind)) for kind in kinds)] for k, e in entries.items()]
    caption = "A network evaluation is one picture through the network once."
    return [Table(["", *map(name_of, kinds)], rows, caption)] if kinds else []
