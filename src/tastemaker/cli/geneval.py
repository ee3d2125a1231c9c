"""`tastemaker evaluate geneval` and `tastemaker evaluate questions`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import parse_seeds

Out = Annotated[Path, Option(help="The folder of the run.", metavar="RUN")]


def geneval(
    model: Annotated[
        str, Argument(help="A name from `tastemaker models`, KIND:PATH, a run; or pictures in GenEval's layout.")
    ] = "tiny-flow",
    against: Annotated[str, Option(help="Another of these, on the same prompts and seeds.")] = "",
    prompts: Annotated[str, Option(help="A GenEval metadata file; the embedded one if not given.")] = "",
    seed: Annotated[str, Option(help="3, 0..7 or 0..3,10.")] = "0..3",
    detector: Annotated[str, Option(help="mask2former:FOLDER or detector:FOLDER; else the embedded world's.")] = "",
    colours: Annotated[str, Option(help="What names colours: clip:FOLDER.")] = "",
    detections: Annotated[str, Option(help="A detections.jsonl, to be judged again without its detector.")] = "",
    reference: Annotated[str, Option(help="Pictures in which the detector must find something; else drawings.")] = "",
    select: Annotated[str, Option(help="A reward that chooses the best of N.")] = "",
    threshold: Annotated[float, Option(help="A box counts above this score.", min=0, max=1)] = 0.3,
    counting_threshold: Annotated[float, Option(help="The same where objects are counted.", min=0, max=1)] = 0.9,
    position_threshold: Annotated[float, Option(help="Share of the sizes that is not yet an offset.", min=0)] = 0.1,
    max_objects: Annotated[int, Option(help="Boxes of a class that are looked at.", min=1)] = 16,
    max_overlap: Annotated[float, Option(help="Overlap from which the worse box is dropped; 1: never.", max=1)] = 1.0,
    batch: Annotated[int, Option(help="Pictures at a time.", min=1)] = 16,
    out: Out = Path("geneval"),
) -> None:
    """The share of pictures that show what was asked, per task, any-of-N, best-of-N; paired where there are two."""
    from ..object_rules import Rules
    from ..workflows.geneval import evaluate_geneval
    from ..workflows.geneval_report import Settings

    rules = Rules(threshold, counting_threshold, position_threshold, max_objects, max_overlap)
    asked = Settings(
        model,
        against,
        prompts,
        tuple(parse_seeds(seed)),
        detector,
        colours,
        detections,
        reference,
        select,
        batch,
        rules,
    )
    print(evaluate_geneval(asked, out))


def questions(
    pictures: Annotated[
        Path, Argument(help="A folder of `tastemaker sample`, GenEval's layout, or a CSV with `file` and `prompt`.")
    ],
    questions: Annotated[Path, Option(help="Questions of each prompt: .jsonl, .json or .csv, see docs/geneval.md.")],
    judge: Annotated[str, Option(help="An OpenAI-compatible endpoint: http://host:8000/v1#MODEL.")],
    suffix: Annotated[str, Option(help="Added to every question.")] = " Answer in one word.",
    workers: Annotated[int, Option(help="Questions at a time.", min=1)] = 8,
    out: Out = Path("questions"),
) -> None:
    """Soft-TIFA: how probable a judge finds the right answers, by arithmetic and geometric mean, skill and length."""
    from ..workflows.questions import evaluate_questions

    print(evaluate_questions(pictures, questions, judge, suffix, workers, out))
