"""`tastemaker score`: rewards of pictures."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import names

NAME = "score"


def run(
    rewards: Annotated[str, Argument(help="Names from `tastemaker models` or FILE.py:FUNCTION, with commas.")],
    images: Annotated[
        Path, Argument(help="A folder of pictures, a CSV with a column `image`, or a tar of pictures.")
    ],
    prompts: Annotated[Path | None, Option(help="Prompts, where the pictures carry no captions.")] = None,
    batch: Annotated[int, Option(help="Pictures at a time.", min=1)] = 64,
    out: Annotated[Path, Option(help="The table to write: .parquet, .csv or .jsonl.")] = Path("scores.parquet"),
) -> None:
    """Score pictures with one or more rewards; a picture that gets no score is reported and left empty."""
    from ..workflows.score import score_to_table

    print(score_to_table(names(rewards), images, prompts, out, batch))
