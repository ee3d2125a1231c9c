"""`tastemaker evaluate NAME`: figures with their intervals."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from ..errors import TastemakerError
from .annotate import workflow
from .options import names, parse_seeds

NAME = "evaluate"
app = Typer(help="Measure a generator or a set of pictures, with 95 % intervals.", no_args_is_help=True)

Out = Annotated[Path, Option(help="The folder of the run.", metavar="RUN")]
Pictures = Annotated[Path, Argument(help="A folder of pictures, a CSV with a column `image`, or a tar of pictures.")]


@app.command()
def geneval(
    model: Annotated[str, Argument(help="A name from `tastemaker models`, KIND:PATH, or a run.")] = "tiny-flow",
    against: Annotated[str | None, Option(help="Another model, on the same prompts and seeds.")] = None,
    prompts: Annotated[Path | None, Option(help="A GenEval metadata file; the embedded one if not given.")] = None,
    seed: Annotated[str, Option(help="3, 0..7 or 0..3,10.")] = "0..3",
    out: Out = Path("geneval"),
) -> None:
    """The share of pictures that show what was asked, per task; paired differences where there are two models."""
    seeds = parse_seeds(seed)
    from ..workflows.evaluate import evaluate_geneval

    print(evaluate_geneval(model, against, prompts, seeds, out))


@app.command()
def frechet(
    images: Pictures,
    reference: Pictures,
    space: Annotated[str, Option(help="Feature spaces, with commas.")] = "tiny-clip,efficientnet-lite0",
    out: Out = Path("frechet"),
) -> None:
    """Fréchet and kernel distances, precision, recall, density and coverage against reference pictures."""
    from ..workflows.evaluate import evaluate_frechet

    print(evaluate_frechet(images, reference, space.split(","), out))


@app.command()
def drift(images: Pictures, reference: Pictures, out: Out = Path("drift")) -> None:
    """Brightness, saturation, contrast and colourfulness against reference pictures."""
    from ..workflows.evaluate import evaluate_drift

    print(evaluate_drift(images, reference, out))


@app.command()
def preference(
    rewards: Annotated[str, Argument(help="Names from `tastemaker models` or FILE.py:FUNCTION, with commas.")],
    data: Annotated[Path, Option(help="A folder or file of votes, or a ratings table with its pictures.")],
    scale: Annotated[str, Option(help="Which ratings make the pairs; votes and rankings if not given.")] = "",
    margin: Annotated[float, Option(help="Ratings at most so far apart are a tie.", min=0)] = 0.0,
    out: Out = Path("preference"),
) -> None:
    """How often rewards have the order of two pictures as people have it: pair accuracy, recall@k, filter@k."""
    wanted = names(rewards)
    from ..workflows.preference import evaluate_preference

    print(evaluate_preference(wanted, data, scale, margin, out))


@app.command()
def human(
    first: Annotated[
        str,
        Argument(help="A run, a folder of `tastemaker sample` or a model; or a table that `tastemaker score` wrote.",
                 metavar="RUN_A"),
    ],
    second: Annotated[
        str,
        Argument(help="Another run; or a CSV with `file`, columns of human ratings and, if it has one, `prompt`.",
                 metavar="RUN_B"),
    ],
    database: Annotated[str, Option(help="Runs: a SQLite file or a postgresql:// URL.")] = "annotations.db",
    project: Annotated[str, Option(help="Runs: the project's name; from their folders if not given.")] = "",
    prompts: Annotated[Path | None, Option(help="Runs: what a model draws; embedded prompts if not given.")] = None,
    seed: Annotated[str, Option(help="Runs: 3, 0..7 or 0..3,10; what a model draws.")] = "0..3",
    overlap: Annotated[int, Option(help="Runs: people who answer each pair.", min=1)] = 1,
    limit: Annotated[int, Option(help="Runs: at most so many pairs; 0 for all.", min=0)] = 0,
    out: Out = Path("human"),
    column: Annotated[list[str] | None, Option(help="CSV: columns of ratings; else all numeric ones.")] = None,
    within: Annotated[str | None, Option(help="CSV: rank inside the groups of this column.")] = None,
) -> None:  # fmt: skip
    """Which of two runs people prefer: asks at first, reads later. Of SCORES and a CSV: the rank correlation."""
    if Path(first).suffix == ".parquet" or Path(second).suffix == ".csv":
        from ..workflows.correlate import correlate, print_correlations

        print_correlations(correlate(first, second, column, within))
        return
    if column or within:
        raise TastemakerError("--column and --within are of SCORES.parquet and a CSV, not of two runs")
    ask_or_read = workflow("human").ask_or_read
    print(ask_or_read(first, second, database, project, prompts, parse_seeds(seed), overlap, limit, out))
