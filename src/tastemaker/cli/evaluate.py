"""`tastemaker evaluate NAME`: figures with their intervals."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from ..errors import TastemakerError
from .annotate import workflow
from .geneval import geneval, questions
from .options import names, parse_seeds

NAME = "evaluate"
app = Typer(help="Measure a generator or a set of pictures, with 95 % intervals.", no_args_is_help=True)

Out = Annotated[Path, Option(help="The folder of the run.", metavar="RUN")]
PICTURES = "A folder of pictures or a CSV with a column `file`"
Pictures = Annotated[Path, Argument(help=f"{PICTURES}.")]


app.command()(geneval)
app.command()(questions)


@app.command()
def frechet(
    images: Pictures,
    reference: Annotated[
        Path, Argument(help=f"{PICTURES}; or moments: a file of --save-moments, an .npz with mu and sigma.")
    ],
    space: Annotated[str, Option(help="Feature spaces, with commas.")] = "tiny-clip,efficientnet-lite0",
    base: Annotated[Path | None, Option(help="Pictures of before, to compare with; pairs by words and seed.")] = None,
    rewards: Annotated[str, Option(help="Rewards to ask about the same pictures, with commas.")] = "",
    class_names: Annotated[
        Path | None, Option(help="Names, one a line: prompt 7 is then `a photo of a` and the eighth.")
    ] = None,
    save_moments: Annotated[Path | None, Option(help="Keep the reference's moments in this .safetensors.")] = None,
    save_features: Annotated[bool, Option("--save-features", help="Keep its features there too.")] = False,
    out: Out = Path("frechet"),
) -> None:
    """Fréchet and kernel distances to real pictures over their floor, precision to coverage, rewards, looks."""
    from ..workflows.fidelity import evaluate_frechet

    judges = names(rewards) if rewards else []
    spaces = names(space)
    print(evaluate_frechet(images, reference, spaces, out, base, judges, class_names, save_moments, save_features))


@app.command()
def pareto(
    results: Annotated[
        list[str], Argument(help="Runs, result.json files or CSVs; FRONT=PATH or FRONT:POINT=PATH names them.")
    ],
    x: Annotated[str, Option(help="GROUP.FIGURE or a column; the first Fréchet distance if not given.")] = "",
    y: Annotated[str, Option(help="Likewise; the first reward if not given.")] = "",
    lower: Annotated[str, Option(help="Axes where lower is better: x, y or x,y; from the figure if not given.")] = "",
    corner: Annotated[str, Option(help="X,Y where the dominated area begins; the worst of both if not given.")] = "",
    out: Out = Path("pareto"),
) -> None:
    """Fronts of two figures over several runs: who is beaten by nobody, and the area dominated, with intervals."""
    from ..workflows.pareto import evaluate_pareto

    print(evaluate_pareto(results, x, y, lower, corner, out))


@app.command()
def drift(images: Pictures, reference: Pictures, out: Out = Path("drift")) -> None:
    """Brightness, saturation, contrast, colourfulness, whiteness and sharpness against reference pictures."""
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
