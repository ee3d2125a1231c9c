"""`tastemaker evaluate geneval`: who is right how often, by the official rules, with every detection kept.

RUN/samples/00000/...   the pictures of a model, in the official layout
RUN/detections.jsonl    what was seen, and the rewards' scores; `--detections` judges it again
RUN/results.jsonl       a verdict a picture, as the official evaluation writes it
RUN/against/...         the same of the model compared with
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..data.files import write_text
from ..data.prompts import read_prompts
from ..devices import best_device
from ..errors import TastemakerError
from ..evaluation.colours import ColourNames
from ..evaluation.detections import (
    About,
    Boxes,
    Finder,
    Found,
    about_line,
    line_of,
    read_detections,
    require_known,
)
from ..evaluation.detectors import FolderDetector, load_boxes, load_mask2former
from ..evaluation.finders import ObjectFinder
from ..protocols import Reward
from ..records import Prompt
from ..sampling import score_checked
from ..weights import file_hash, shipped
from ..world.check import SCORES, detector, require_specs
from ..world.grammar import OBJECTS, evaluation_prompts
from .geneval_pictures import Drawn, Pictures, is_stored, read_stored
from .geneval_report import Settings, names_of, place, report
from .load import load_generator
from .runs import Run, make_room
from .sample import check_words
from .self_test import self_test

DETECTORS = {"mask2former": load_mask2former, "detector": load_boxes}


class WorldFinder:
    """The embedded world's own detector, see `evaluation.detections.Finder`."""

    name, colours, classes, floor = SCORES, SCORES, frozenset(OBJECTS), 0.1

    def __init__(self) -> None:
        self.weights = {SCORES: file_hash(shipped(SCORES))}

    def find(self, images: Tensor, prompts: Sequence[Prompt]) -> list[Boxes | str]:
        return list(detector(SCORES).detect(images))


def evaluate_geneval(settings: Settings, out: Path) -> Path:
    """Measure, or judge again what was seen before (`settings.detections`). Returns the page.

    Raises TastemakerError, before anything is drawn, where the prompts ask for what the detector does not know or the
    detector finds nothing in its self-test, and after the measurement where a detector from a folder found nothing.
    """
    make_room(out)
    if settings.detections:
        return _judge_again(settings, out)
    finder = finder_of(settings)
    reward = _reward(settings.select)
    sources = {name: source_of(name, settings, place(out, name, settings)) for name in names_of(settings)}
    about = About(finder.name, finder.colours, tuple(sorted(finder.classes)), finder.floor, finder.weights)
    _require_pairs(settings, sources)
    for source in sources.values():
        require_known(about, source.prompts, settings.rules)
    said = self_test(finder, settings.rules.threshold, Path(settings.reference) if settings.reference else None)
    run = Run.create(out, settings, weights=finder.weights)
    seen = {}
    for name, source in sources.items():
        own = replace(about, pictures=len(source.prompts), model=name)
        seen[name] = measure(source, finder, reward, own, place(out, name, settings), settings.batch)
    if settings.detector:
        _require_something(seen, finder)
    return report(run, settings, seen, said)


def _require_pairs(settings: Settings, sources: Mapping[str, Pictures]) -> None:
    if settings.against and len(sources) < 2:
        raise TastemakerError(f"{settings.on} cannot be compared with itself; name another model by --against")
    shown = [[p.text for p in source.prompts] for source in sources.values()]
    if shown[0] != shown[-1]:
        raise TastemakerError(
            f"{settings.against} and {settings.on} show other prompts, or not as many pictures of each, so that "
            "pictures cannot be paired; measure each without --against"
        )


def _judge_again(settings: Settings, out: Path) -> Path:
    if settings.against:
        raise TastemakerError("--detections tell of one model; judge each model's own, without --against")
    about, found = read_detections(settings.detections)
    require_known(about, [row.prompt for row in found], settings.rules)
    run = Run.create(out, settings, weights=about.weights)
    return report(run, settings, {about.model or settings.on: found}, f"boxes of {about.detector}, judged again")


def finder_of(settings: Settings) -> Finder:
    """The world's own without a detector. Raises TastemakerError for a word that names none."""
    if not settings.detector:
        if settings.colours:
            raise TastemakerError("--colours belong to a --detector; the world's own names colours itself")
        return WorldFinder()
    found = _detector(settings.detector)
    if not settings.colours:
        return ObjectFinder(found)
    kind, _, folder = settings.colours.partition(":")
    if kind != "clip" or not folder:
        raise TastemakerError(
            f"expected --colours clip:FOLDER (a CLIP folder with its tokenizer), got {settings.colours}"
        )
    from ..encoders.clip import load_clip_folder

    clip = load_clip_folder(folder)
    clip.network.to(best_device())
    return ObjectFinder(found, ColourNames(clip))


def _detector(where: str) -> FolderDetector:
    kind, _, folder = where.partition(":")
    if kind not in DETECTORS or not folder:
        expected = " or ".join(f"{known}:FOLDER" for known in DETECTORS)
        raise TastemakerError(f"expected --detector {expected}, got {where}")
    return DETECTORS[kind](folder, best_device())


def _reward(name: str) -> Reward | None:
    if not name:
        return None
    from ..rewards.table import load_reward

    return load_reward(name)


def source_of(name: str, settings: Settings, folder: Path) -> Pictures:
    """A folder of pictures, or a generator that will draw into folder/samples."""
    if is_stored(Path(name)):
        if settings.prompts:
            raise TastemakerError(f"{name} is a folder of pictures, which names its own prompts; leave out --prompts")
        return read_stored(Path(name))
    prompts = read_prompts(settings.prompts) if settings.prompts else evaluation_prompts(settings.per_task)
    require_specs(prompts)
    generator = load_generator(name)
    check_words(generator, prompts)
    return Drawn(generator, prompts, settings.seeds, folder / "samples")


def measure(
    source: Pictures, finder: Finder, reward: Reward | None, about: About, folder: Path, batch: int
) -> list[Found]:
    """What is seen in every picture, in the order of the source, and folder/detections.jsonl."""
    errors: dict[int, str] = {}
    found: dict[int, Found] = {}
    parts = (look(source, finder, reward, rows, images) for rows, images in source.batches(batch, errors))
    total = -(-len(source.prompts) // batch)
    for part in track(parts, f"looking at {about.model}", total, console=Console(stderr=True)):
        found |= part
    for row, reason in errors.items():
        found[row] = Found(source.files[row], source.prompts[row], error=reason)
    rows = [found[row] for row in range(len(source.prompts))]
    write_text(folder / "detections.jsonl", "".join([about_line(about), *map(line_of, rows)]))
    return rows


def look(
    source: Pictures, finder: Finder, reward: Reward | None, rows: Sequence[int], images: Tensor
) -> dict[int, Found]:
    """By row. images (b, 3, H, W) in [0, 1]."""
    prompts = [source.prompts[row] for row in rows]
    seen = finder.find(images, prompts)
    liked = score_checked(reward, images, prompts).tolist() if reward is not None else [math.nan] * len(rows)
    height, width = images.shape[-2:]
    out = {}
    for row, prompt, boxes, score in zip(rows, prompts, seen, liked, strict=True):
        scores = {reward.name: score} if reward is not None else {}
        what = {"error": boxes} if isinstance(boxes, str) else {"boxes": boxes}
        out[row] = Found(source.files[row], prompt, width, height, scores=scores, **what)
    return out


def _require_something(seen: Mapping[str, Sequence[Found]], finder: Finder) -> None:
    for name, found in seen.items():
        if not any(row.boxes for row in found):
            raise TastemakerError(
                f"{finder.name} found nothing at all in any of the {len(found)} pictures of {name}, though it passed "
                "its self-test; no score is written. Look at the pictures, and at detections.jsonl"
            )
