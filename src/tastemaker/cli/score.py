"""`tastemaker score`: rewards of pictures."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import names

NAME = "score"


def run(
    rewards: Annotated[str, Argument(help="Names from `tastemaker models` or FILE.py:FUNCTION, with commas.")],
    images: Annotated[
        Path,
        Argument(
            help="Pictures: a folder, a CSV with `file` and `prompt`, one file; or shards: tars, Parquet, folders."
        ),
    ],
    prompt: Annotated[
        str | None, Option(help="The prompt of all pictures; else the CSV's, or the .txt beside each.")
    ] = None,
    batch: Annotated[int, Option(help="Pictures at a time.", min=1)] = 64,
    out: Annotated[
        Path | None, Option(help="The table NAME.parquet, or a folder for shards, which is beside them if not given.")
    ] = None,
    caption: Annotated[str, Option(help="Shards: the .json entry or column of the words.")] = "caption",
    workers: Annotated[int, Option(help="Shards: processes on this machine; with --ray, actors.", min=0)] = 0,
    ray: Annotated[str, Option(help="Shards: score on this Ray cluster; `auto` finds one, `local` starts one.")] = "",
    again: Annotated[
        bool, Option("--again", help="Shards: score anew what was changed since it was scored.")
    ] = False,
    verify: Annotated[bool, Option("--verify", help="Shards: read every scored one to compare its hash.")] = False,
) -> None:
    """Score pictures or shards with rewards; what cannot be read is named. Shards that are scored are not scored
    again: after a kill the same command goes on."""
    wanted = names(rewards)
    from ..data.shards import Words
    from ..workflows.shards import Options, score

    score(wanted, images, out, Options(Words(caption, prompt), batch, workers, ray, again, verify))
