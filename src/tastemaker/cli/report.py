"""`tastemaker report RUN...`: one page that can be passed on."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

NAME = "report"


def run(
    runs: Annotated[list[Path], Argument(help="Run folders.", metavar="RUN...")],
    out: Annotated[Path | None, Option(help="The page to write; RUN/report.html if not given.")] = None,
) -> None:
    """Write the report of one or several runs again: a single HTML file that works offline."""
    from ..report.runs import write_reports

    for path in write_reports(runs, out):
        print(f"wrote {path}")
