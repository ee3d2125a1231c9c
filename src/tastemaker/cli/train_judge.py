"""`tastemaker train judge`: beside the other algorithms of train.py."""

from pathlib import Path
from typing import Annotated

from typer import Option

from .options import AlgorithmCommand, split_config
from .train import Out, Resume, Track, Words, _done, app


@app.command(cls=AlgorithmCommand)
def judge(
    words: Words = None,
    out: Out = None,
    resume: Resume = None,
    data: Annotated[
        Path | None,
        Option(help="Yes and no about pictures, such as orm.json; else the model's own paths, by the world's check."),
    ] = None,
    track: Track = "",
) -> None:
    """Train a verifier of finished pictures and previews from yes and no (ORM, PRM, PARM, PARM++)."""
    settings = split_config(words)
    from ..workflows.judge import train_judge

    _done(train_judge(*settings, out, resume, data, track))
