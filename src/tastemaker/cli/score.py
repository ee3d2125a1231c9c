"""`tastemaker score`: rewards of pictures."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import names

NAME = "score"


def run(
    rewards: Annotated[str, Argument(help="Names from `tastemaker models` or FILE.py:FUNCTION, with commas.")],
    images: Annotated[
        Path, Argument(help="A folder of pictures, a CSV with columns `file` and `prompt`, or one picture.")
    ],
    prompt: Annotated[
        str | None, Option(help="The prompt of all pictures; else the CSV's, or the .txt beside each.")
    ] = None,
    batch: Annotated[int, Option(help="Pictures at a time.", min=1)] = 64,
    out: Annotated[Path, Option(help="The Parquet table to write.")] = Path("scores.parquet"),
) -> None:
    """Score pictures with one or more rewards; a picture that cannot be read is named and left out."""
    wanted = names(rewards)
    from ..rewards.table import load_rewards
    from ..workflows.score import score_folder

    score_folder(load_rewards(wanted), images, out, prompt, batch)
