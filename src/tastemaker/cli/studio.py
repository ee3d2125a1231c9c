"""`tastemaker studio`: a page with a slider for each reward."""

from typing import Annotated

from typer import Argument, Option

from .annotate import workflow

NAME = "studio"


def run(
    model: Annotated[str, Argument(help="A generator that is told rewards: a run of `train miro`.")] = "tiny-miro",
    rewards: Annotated[str, Option(help="What measures the pictures; the model's own rewards if not given.")] = "",
    host: Annotated[str, Option(help="127.0.0.1 is this machine only, 0.0.0.0 all that reach it.")] = "127.0.0.1",
    port: Annotated[int, Option(help="The port to listen on.")] = 8001,
) -> None:
    """Serve a page on which the trade-off between rewards is chosen by sliders."""
    workflow("studio").serve_studio(model, rewards, host, port)
