"""`tastemaker search NAME`: better pictures from a generator as it is."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from .options import names, parse_seeds

NAME = "search"
app = Typer(help="Find better pictures from a generator as it is, and count what that costs.", no_args_is_help=True)


@app.command("best-of-n")
def best_of_n(
    model: Annotated[str, Argument(help="A name from `tastemaker models`, or KIND:PATH.")] = "tiny-flow",
    reward: Annotated[
        str, Option(help="Names or FILE.py:FUNCTION, with commas; their z-scores are added.")
    ] = "alignment",
    prompt: Annotated[list[str] | None, Option(help="What to show; may be given several times.")] = None,
    prompts: Annotated[Path | None, Option(help="A prompt file.")] = None,
    seed: Annotated[str, Option(help="3, 0..7 or 0..3,10.")] = "0..7",
    n: Annotated[int, Option(help="Candidates for each prompt and seed.", min=1)] = 8,
    report_by: Annotated[str, Option(help="A judge who does not choose, by whom the result is reported too.")] = "",
    export_pairs: Annotated[
        Path | None, Option(help="Best and worst, for `train dpo --data`.", metavar="FILE.jsonl")
    ] = None,
    out: Annotated[Path, Option(help="The folder of the run.", metavar="RUN")] = Path("search"),
) -> None:
    """Draw N candidates for each prompt and seed, and keep the one that the reward likes best."""
    seeds = parse_seeds(seed)
    from ..workflows.search import Request, search_to_folder

    asked = Request(
        model, names(reward), prompt or [], prompts, seeds, report_by=report_by, export_pairs=export_pairs
    )
    print(search_to_folder("best-of-n", asked, out, [f"n={n}"]))


@app.command("targets")
def targets(
    model: Annotated[str, Argument(help="A model of `tastemaker train miro`.")] = "tiny-miro",
    reward: Annotated[
        str, Option(help="What to judge by, names with commas; rewards that it was not told may be among them.")
    ] = "preference,alignment,sharpness,harmony",
    prompt: Annotated[list[str] | None, Option(help="What to show; may be given several times.")] = None,
    prompts: Annotated[Path | None, Option(help="A prompt file; else prompts of the embedded world.")] = None,
    candidates: Annotated[int, Option(help="Targets that are taken from the training pictures' front.", min=1)] = 12,
    seed: Annotated[int, Option(help="Of the pictures.", min=0)] = 0,
    out: Annotated[Path, Option(help="The folder of the run.", metavar="RUN")] = Path("targets"),
) -> None:
    """Look for targets of rewards on half of the prompts, and report the front that they reach on the other half."""
    from ..workflows.targets import search_targets

    print(search_targets(model, names(reward), prompt or [], prompts, candidates, out, seed))
