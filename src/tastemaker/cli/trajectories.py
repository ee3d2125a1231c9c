"""`tastemaker search prm|parm|...`: the searches on trajectories; settings are those of each `Config`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from typer import Argument, Option
from typer.core import TyperCommand

from .options import AlgorithmCommand, names, parse_seeds, print_settings
from .search import app

SENTENCES = {
    "prm": "Search step by step: after each step the verifier's favourite preview goes on and branches anew (PRM).",
    "parm": "Cut off paths whose clear previews have no potential, and choose the best of the others (PARM).",
    "particles": "Steer a population of paths by a reward: draw them again by their weights (Feynman-Kac steering).",
    "halving": "Begin with many paths and end the worse part of them at every rung (successive halving).",
    "threshold": "Take one path at a time, and only as long as the verifier is content.",
    "noise": "Search around the best starting noise, for generators of few steps (zero-order search).",
    "draft": "Draw many candidates in few steps, and the best of them again in all.",
}
Words = Annotated[list[str] | None, Argument(metavar="[MODEL] [key=value ...]", help="Settings, see below.")]
RewardName = Annotated[
    str, Option(help="The verifier: names with commas, judge:RUN, orm:URL, vlm:FOLDER, FILE.py:NAME.")
]
Said = Annotated[list[str] | None, Option(help="What to show; may be given several times.")]
PromptFile = Annotated[Path | None, Option(help="A prompt file.")]
Seed = Annotated[str, Option(help="3, 0..7 or 0..3,10.")]
Steps = Annotated[int | None, Option(help="Of sampling; else the model's own.", min=1)]
Schedule = Annotated[str, Option(help="Of masked tokens: cosine, linear, or pow2 and its kind.")]
Guidance = Annotated[float | None, Option(help="Of sampling; else the model's own; 1 is none.")]
Budget = Annotated[int | None, Option(help="Network evaluations for each prompt and seed; sets n.", min=1)]
ReportBy = Annotated[str, Option(help="A judge who does not choose, by whom the result is reported too.")]
Pairs = Annotated[
    Path | None, Option(help="Best and worst candidates, for `train dpo --data`.", metavar="FILE.jsonl")
]
Out = Annotated[Path, Option(help="The folder of the run.", metavar="RUN")]


class SearchCommand(AlgorithmCommand):
    """A command whose settings are those of the search of its name."""

    @property
    def algorithm(self) -> str:
        return f"search/{self.name}"

    def format_help(self, ctx, formatter) -> None:
        TyperCommand.format_help(self, ctx, formatter)
        print_settings(self.algorithm)


def _model(words: list[str] | None) -> tuple[str, list[str]]:
    """`[MODEL] [key=value ...]`."""
    given = list(words or [])
    model = given.pop(0) if given and "=" not in given[0] else "tiny-flow"
    return model, given


def _command(method: str) -> Callable[..., None]:
    def run(
        words: Words = None, reward: RewardName = "alignment", prompt: Said = None, prompts: PromptFile = None,
        seed: Seed = "0..3", steps: Steps = None, schedule: Schedule = "", guidance: Guidance = None,
        budget: Budget = None, report_by: ReportBy = "", export_pairs: Pairs = None, out: Out = Path("search"),
    ) -> None:  # fmt: skip
        model, settings = _model(words)
        seeds = parse_seeds(seed)
        from ..workflows.search import Request, search_to_folder

        request = Request(model, names(reward), prompt or [], prompts, seeds, steps, guidance, budget, report_by,
                          export_pairs, schedule=schedule)  # fmt: skip
        print(search_to_folder(method, request, out, settings))

    return run


for _name, _sentence in SENTENCES.items():
    _run = _command(_name)
    _run.__doc__ = _sentence
    app.command(_name, cls=SearchCommand)(_run)


@app.command(cls=SearchCommand)
def reflect(
    words: Words = None,
    reward: RewardName = "alignment",
    prompt: Said = None,
    prompts: PromptFile = None,
    seed: Seed = "0..3",
    steps: Steps = None,
    schedule: Schedule = "",
    guidance: Guidance = None,
    budget: Budget = None,
    report_by: ReportBy = "",
    export_pairs: Pairs = None,
    export_groups: Annotated[
        Path | None,
        Option(
            help="Wrong pictures, right ones and reasons, for `train self-correction --data`.", metavar="FILE.jsonl"
        ),
    ] = None,
    out: Out = Path("search"),
) -> None:
    """Search as parm, then say what is wrong, draw it again and keep what is better (PARM++)."""
    model, settings = _model(words)
    seeds = parse_seeds(seed)
    from ..workflows.search import Request, search_to_folder

    request = Request(model, names(reward), prompt or [], prompts, seeds, steps, guidance, budget, report_by,
                      export_pairs, export_groups, schedule)  # fmt: skip
    print(search_to_folder("reflect", request, out, settings))


@app.command(cls=SearchCommand)
def calibrate(
    words: Words = None,
    reward: RewardName = "alignment",
    prompt: Said = None,
    prompts: PromptFile = None,
    seed: Seed = "0..3",
    steps: Steps = None,
    schedule: Schedule = "",
    guidance: Guidance = None,
    out: Out = Path("calibration"),
) -> None:
    """Measure from which step on previews foretell the end, by the rank correlation of their scores."""
    model, settings = _model(words)
    seeds = parse_seeds(seed)
    from ..workflows.search import Request, calibrate_to_folder

    request = Request(model, names(reward), prompt or [], prompts, seeds, steps, guidance, schedule=schedule)
    print(calibrate_to_folder(request, out, settings))
