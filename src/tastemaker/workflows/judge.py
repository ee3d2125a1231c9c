"""`tastemaker train judge`: a verifier learns from labels that the world's check gives to a generator's paths, or
from a file of yes and no; tiny-clip's towers with fresh heads, or a vision-language model with an adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..algorithms import judge
from ..algorithms.judge import SHARES, Config, Rows
from ..algorithms.optimise import begin
from ..algorithms.selection import Selection
from ..data.judgements import read_judgements
from ..devices import best_device
from ..encoders.tiny_clip import load_tiny_clip
from ..errors import TastemakerError
from ..records import Prompt
from ..rewards.tiny_judge import JudgeConfig, TinyJudge
from .files import sha256_of
from .follow import follow
from .judge_rows import FileRows, drawn_rows, export_rows, judge_prompts, not_said
from .load import load_generator
from .runs import Run, open_run, read_settings
from .sample import plan_of
from .sinks import open_sinks, sink_names
from .train import run_recipe
from .tuning import speaks_of_the_world, stored

FILE_SIDE = 384  # pixels, of pictures for a vision-language model


def train_judge(config_path=None, overrides: Sequence[str] = (), out=None, resume=None, data=None, track="") -> Run:
    """Train a verifier; data: a file of yes and no (data/judgements.py), else the paths of `config.model`."""
    config = read_settings(Config, config_path, overrides, resume)
    sink_names(track)
    student = new_judge(config)
    given = None if data is None else file_rows(Path(data), student, config)
    generator = None if given is not None else judged_generator(config)
    run = open_run(config, out, resume, {} if data is None else {"data": sha256_of(Path(data))})
    student.network.to(best_device())
    train, held_out = given or own_rows(run, generator, student, config)
    state = begin(student.network, config.optimiser)
    selection = Selection(state)
    run.restore(selection)
    records = judge.train(student, train, held_out, config, selection)
    follow(run, records, selection, config.steps, open_sinks(track, run, state.step))
    selection.keep_best()
    return conclude(run, student, selection, held_out, config)


def new_judge(config: Config) -> Any:
    """The one to be trained. Raises TastemakerError for a base that is not known, or cannot learn the recipe."""
    kind, _, path = config.base.partition(":")
    if kind == "tiny-clip":
        shape = JudgeConfig(config.width, config.depth, config.members)
        student = TinyJudge.new(load_tiny_clip(path or None), shape, config.seed)
        student.network.requires_grad_(True)
        student.freeze(config.frozen_share)
        return student
    if kind != "vlm" or not path:
        raise TastemakerError(f"expected base=tiny-clip[:PATH] or base=vlm:FOLDER, got '{config.base}'")
    if config.recipe == "parm++":
        raise TastemakerError("words and regions at fault are heads of tiny-judge; with base=vlm give recipe=parm")
    from ..rewards.vlm import load_vlm
    from ..rewards.vlm_adapter import student_of

    return student_of(load_vlm(path), config.lora_rank, config.seed)


def judged_generator(config: Config) -> Any:
    """The generator whose paths are judged. Raises TastemakerError for one that does not speak of the world."""
    generator = load_generator(config.model)
    if not speaks_of_the_world(generator):
        raise TastemakerError(
            f"'{config.model}' does not speak of the embedded world, whose check makes the labels; give a file of "
            "yes and no, --data FILE.json"
        )
    generator.plan = plan_of(generator, config.sampling_steps, config.schedule)
    return generator


def own_rows(run: Run, generator: Any, student: Any, config: Config) -> tuple[Rows, Rows]:
    """What is trained on and what validates, on other prompts; drawn once and kept in the run."""
    (train, last), labels, found = judge_prompts(config), labels_of(student), []
    for name, own, other in (("train", train, last), ("validation", last, train)):
        draw = partial(drawn_rows, generator, own, config, *labels, without=not_said(other))
        found.append(kept_rows(run.folder / f"{name}.safetensors", draw))
    if config.export:
        export_rows(found[0], Path(config.export))
    return found[0], found[1]


def kept_rows(path: Path, draw: Callable[[], Rows]) -> Rows:
    """The rows in the file, or drawn now and kept there."""

    def tensors() -> dict[str, torch.Tensor]:
        rows = draw()
        said = json.dumps([[p.text, p.spec] for p in rows.prompts]).encode()
        parts = {n: getattr(rows, n) for n in ("images", "question", "answer", "words", "places")}
        return parts | {"prompts": torch.frombuffer(bytearray(said), dtype=torch.uint8)}

    found = stored(path, tensors)
    said = json.loads(bytes(found.pop("prompts").numpy()))
    return Rows(prompts=tuple(Prompt(text, spec=spec) for text, spec in said), **found)


def labels_of(student: Any) -> tuple[int, int]:
    """Regions a side and words that it learns faults of; a vision-language model has neither: 1 each."""
    return getattr(student, "grid", 1), student.vocabulary.length if hasattr(student, "vocabulary") else 1


def file_rows(path: Path, student: Any, config: Config) -> tuple[FileRows, FileRows]:
    """The rows of a file by prompt: a share of the prompts validates. Raises TastemakerError where nothing is left
    for one of the two."""
    asked = {q for q, share in zip(judge.QUESTIONS, SHARES[config.recipe]) if share}
    found = [j for j in read_judgements(path) if j.answer is not None and j.task in asked]
    size, (grid, length) = getattr(student, "size", FILE_SIDE), labels_of(student)

    def held(text: str) -> bool:
        return hashlib.sha256(f"{config.seed} {text}".encode()).digest()[0] / 256 < config.validation_share

    parts = [tuple(j for j in found if held(j.prompt.text) == wanted) for wanted in (False, True)]
    if not all(parts):
        raise TastemakerError(
            f"{path} holds {len(found)} rows for recipe={config.recipe}, which leaves {len(parts[0])} to train on "
            f"and {len(parts[1])} to validate; give more prompts, or another validation_share or seed"
        )
    train, validation = (FileRows(part, size, grid, length) for part in parts)
    return train, validation


def conclude(run: Run, student: Any, selection: Selection, held_out: Any, config: Config) -> Run:
    """Save the best weights and say how often they are right on prompts they have not seen."""
    figures = judge.validate(student, held_out, config)
    student.recipe = run_recipe(run, selection.state)
    student.network.cpu()
    student.write(run.folder / "model.safetensors")
    shares = {k: v for k, v in figures.items() if k.endswith("_accuracy")}
    shares |= {f"{n.removesuffix('_accuracy')}_base_rate": float(base_rate(held_out, n)) for n in shares}
    summary = (
        f"Kept step {selection.best_step} of {selection.step}; {len(held_out)} rows on prompts that were not "
        "trained on. The base rate is the share of the commoner answer."
    )
    run.write_result({"summary": summary, "validation": figures | shares, "steps": selection.step})
    return run


def base_rate(rows: Any, figure: str) -> float:
    """The share of the commoner answer to the figure's question."""
    own = rows.question == judge.QUESTIONS.index(figure.removesuffix("_accuracy"))
    share = float(rows.answer[own].float().mean())
    return max(share, 1 - share)
