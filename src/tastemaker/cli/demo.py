"""`tastemaker demo`: the whole story in minutes."""

from pathlib import Path
from typing import Annotated

from typer import Option

from .options import names

NAME = "demo"


def run(
    model: Annotated[str, Option(help="A name from `tastemaker models`, or KIND:PATH.")] = "tiny-flow",
    reward: Annotated[
        str | None, Option(help="Names or FILE.py:FUNCTION, with commas; the demo's own if not given.")
    ] = None,
    prompts: Annotated[Path | None, Option(help="Your own prompts, one a line, or GenEval metadata.")] = None,
    seed: Annotated[int, Option(help="Everything random follows from it.", min=0)] = 0,
    steps: Annotated[int | None, Option(help="Training steps of ReFL.", min=1)] = None,
    out: Annotated[Path, Option(help="The folder of the run.", metavar="RUN")] = Path("runs/demo"),
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a run that is there already.")] = False,
) -> None:
    """Base, ReFL and best-of-8 on the same prompts and seeds, measured, on one page."""
    from ..workflows.demo import run_demo

    print(run_demo(model, names(reward) if reward else None, prompts, seed, steps, out, overwrite))
