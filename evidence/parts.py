"""The command of an evidence file in parts: which run now, and the file with the rows of all that ever ran."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tastemaker.allocator import keep_freed_memory

from .rows import write_rows

RESULTS = Path(__file__).parent / "results"


def run_parts(
    name: str,
    about: str | None,
    parts: Mapping[str, Callable[[Any], list[dict[str, Any]]]],
    lab: Callable[..., Any],
    quick: Any,
    draw_figure: Callable[[Sequence[Mapping[str, Any]], Path], None],
    options: Mapping[str, str] | None = None,
) -> None:
    """Run what the command line names. lab: made of a cache, a folder of partial rows and, for --quick, a scale.
    options: words that the lab takes by name, with what they are by default."""
    words = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="one seed, a few steps of each run; nothing is claimed")
    words.add_argument("--parts", default=",".join(parts), help="which, with commas; all by default")
    words.add_argument("--seeds", help="fewer than all, with commas; rows say which they have")
    words.add_argument("--cache", type=Path, default=Path("runs") / name, help="where pictures and runs are kept")
    for option, default in (options or {}).items():
        words.add_argument(f"--{option}", default=default, help=f"{default} by default")
    given = words.parse_args()
    more = {option: getattr(given, option) for option in options or {}}
    unknown = set(given.parts.split(",")) - set(parts)
    if unknown:
        words.error(f"expected parts among {', '.join(parts)}, got {', '.join(sorted(unknown))}")
    keep_freed_memory()
    small = given.cache / "quick"
    bench = lab(given.cache, RESULTS / "partial", **more)
    if given.quick:
        bench = lab(small, small / "partial", quick, **more)
    if given.seeds:
        bench = replace(bench, scale=replace(bench.scale, seeds=tuple(map(int, given.seeds.split(",")))))
    for folder in (bench.cache, bench.partial):
        folder.mkdir(parents=True, exist_ok=True)
    out = bench.cache if given.quick else RESULTS
    file = out / f"{name}.json"
    rows = {one["claim"]: one for one in json.loads(file.read_text())} if file.is_file() else {}
    for part in given.parts.split(","):
        rows |= {one["claim"]: one for one in parts[part](bench)}
        write_rows(file, list(rows.values()))
        draw_figure(list(rows.values()), out / f"{name}.png")
    print(f"wrote {file} and {name}.png")
