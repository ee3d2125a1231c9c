"""`tastemaker sample`: pictures from prompts and seeds."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import parse_seeds, parse_targets

NAME = "sample"


def run(
    model: Annotated[str, Argument(help="A name from `tastemaker models`, or KIND:PATH.")] = "tiny-flow",
    prompt: Annotated[list[str] | None, Option(help="What to show; may be given several times.")] = None,
    prompts: Annotated[Path | None, Option(help="A prompt file: text, JSON lines or GenEval metadata.")] = None,
    seed: Annotated[str, Option(help="3, 0..7 or 0..3,10; each prompt is drawn with every seed.")] = "0..7",
    steps: Annotated[int | None, Option(help="Sampling steps; the model's own number if not given.", min=1)] = None,
    schedule: Annotated[str, Option(help="Of masked tokens: cosine, linear, or pow2 and its kind.")] = "",
    guidance: Annotated[float | None, Option(help="1 means none; the model's own if not given.")] = None,
    batch: Annotated[int, Option(help="Pictures at a time.", min=1)] = 16,
    guided_by: Annotated[str | None, Option(help="Steer by a reward's gradient, such as discriminator:RUN.")] = None,
    guided_scale: Annotated[float, Option(help="How strongly: what the reward is multiplied by.")] = 1.0,
    guided_after: Annotated[float, Option(help="From this time on; 0 is noise, 1 the picture.")] = 0.1,
    targets: Annotated[
        str, Option(help="For a model told rewards: levels from 0 to 1, REWARD=0.9,REWARD=0.7; or none.")
    ] = "",
    negative: Annotated[str, Option(help="Levels to be led away from, in the same form.")] = "",
    feasible: Annotated[bool, Option(help="Take the levels of the training picture nearest to the targets.")] = False,
    empty_negative: Annotated[bool, Option(help="No caption beside the negative.")] = False,
    keep_caption: Annotated[bool, Option(help="The same caption beside the negative.")] = False,
    out: Annotated[Path, Option(help="The folder for the pictures.")] = Path("samples"),
) -> None:
    """Draw pictures; picture k depends on its prompt and seed alone."""
    wished = parse_targets(targets), parse_targets(negative), feasible, empty_negative, keep_caption
    from ..workflows.sample import Steering, sample_to_folder
    from ..workflows.targets import asker

    by = Steering(guided_by, guided_scale, guided_after) if guided_by else None
    ask = asker(model, *wished) if targets or any(wished) else None
    seeds = parse_seeds(seed)
    print(sample_to_folder(model, prompt or [], prompts, seeds, out, steps, guidance, batch, by, ask, schedule))
