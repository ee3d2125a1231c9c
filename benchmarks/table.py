"""The table of benchmarks/README.md from benchmarks/results.json: python -m benchmarks.table [--check]

--check writes nothing and exits with code 1 where the table is not that of the results.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.rows import FILE

PAGE = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: made by python -m benchmarks.table -->", "<!-- end of table -->"
HEAD = "| name | ours | other | what the other is | ratio | target | command |\n|---|---|---|---|---|---|---|"


def table(rows: list[dict]) -> str:
    return "\n".join([HEAD, *map(line, rows)])


def line(row: dict) -> str:
    figures = [f"{row[side]:.3g} {row['unit']}" for side in ("ours", "other")]
    return (
        f"| `{row['name']}` | {figures[0]} | {figures[1]} | {row['other_is']} | {row['ratio']:.3g} | {row['target']} "
        f"| `{row['command']}` |"
    )


def machine() -> str:
    """Cores, processor, torch."""
    models = [text for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else "unknown processor"
    return f"{os.cpu_count()} cores ({name}), Python {sys.version.split()[0]}, torch {version('torch').split('+')[0]}"


def with_table(page: str, content: str) -> str:
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    rows, page = json.loads(FILE.read_text()), PAGE.read_text()
    if "--check" in sys.argv[1:]:
        stale = [row["name"] for row in rows if line(row) not in page]
        print(f"stale: {', '.join(stale)}; run python -m benchmarks.table" if stale else "the table is up to date")
        return 1 if stale else 0
    PAGE.write_text(with_table(page, f"Machine: {machine()}.\n\n{table(rows)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
