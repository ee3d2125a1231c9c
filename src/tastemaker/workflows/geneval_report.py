"""What `tastemaker evaluate geneval` was asked, and the files and the page of what was seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.files import write_text
from ..evaluation.detections import Found, judged, result_line
from ..evaluation.geneval import compare, geneval
from ..evaluation.of_n import any_of_curve, best_of_curve
from ..object_rules import OFFICIAL, Rules
from ..records import Interval, Prompt
from ..report.comparison import RESERVED
from ..report.runs import write_reports
from .evaluate import geneval_figures
from .geneval_pictures import is_stored
from .runs import Run

OFFICIAL_PROMPTS = "ac3c481628128939793c13827f94fb83c9bc0a7efef1c29bfbe1c117c8c99e5e"  # `digest` of GenEval's 553
SHOWN = 12  # pictures on the page


@dataclass(frozen=True)
class Settings:
    """What was measured; kept as the run's config.yaml."""

    on: str
    against: str = ""
    prompts: str = ""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    detector: str = ""
    colours: str = ""
    detections: str = ""
    reference: str = ""
    select: str = ""
    batch: int = 16
    rules: Rules = OFFICIAL
    per_task: int = 25
    what: str = "geneval"
    seed: int = 0


def names_of(settings: Settings) -> list[str]:
    """The first is the one compared with."""
    return [settings.against, settings.on] if settings.against else [settings.on]


def place(out: Path, name: str, settings: Settings) -> Path:
    """Where the files of a model go."""
    return out / "against" if name == settings.against else out


def report(run: Run, settings: Settings, seen: Mapping[str, Sequence[Found]], said: str) -> Path:
    """Verdicts, figures and the page of what was seen of each model."""
    prompts = {name: [row.prompt for row in found] for name, found in seen.items()}
    correct = {name: verdicts(run, settings, name, found) for name, found in seen.items()}
    result: dict[str, Any] = {"title": "GenEval", "summary": summary(seen, said)}
    for name, found in seen.items():
        result[key_of(name)] = {"label": name, **figures(prompts[name], correct[name], found)}
    if settings.against:
        base, new = names_of(settings)
        difference = compare(prompts[new], correct[new], correct[base])
        result["differences"] = {key_of(new): {"geneval": geneval_figures(difference)}}
    result["pictures"] = list(shown(run, settings, seen, correct))
    run.write_result(result)
    return write_reports([run.folder])[0]


def key_of(name: str) -> str:
    """In result.json, where some words have a meaning of their own."""
    return f"{name}/" if name in RESERVED else name


def verdicts(run: Run, settings: Settings, name: str, found: Sequence[Found]) -> list[float]:
    """1, 0, and NaN where a picture could not be judged; results.jsonl on the way."""
    answers = judged(found, settings.rules)
    lines = [result_line(row, answer, settings.rules) for row, answer in zip(found, answers)]
    write_text(place(run.folder, name, settings) / "results.jsonl", "".join(lines))
    return [math.nan if answer is None else float(answer.correct) for answer in answers]


def figures(prompts: Sequence[Prompt], correct: Sequence[float], found: Sequence[Found]) -> dict[str, Any]:
    """Tasks, any-of-N, best-of-N by each reward that was asked, and what failed."""
    scored = geneval(prompts, correct)
    out: dict[str, Any] = {"geneval": geneval_figures(scored), "any_of_n": curve(any_of_curve(prompts, correct))}
    for name in dict.fromkeys(name for row in found for name in row.scores):
        liked = [row.scores.get(name, math.nan) for row in found]
        out[f"best_of_n_by_{name}"] = curve(best_of_curve(prompts, correct, liked))
    failed = [{"file": found[row].file, "error": found[row].error} for row in scored.failed]
    for one in failed:
        print(f"counted as wrong: {one['file']}: {one['error']}")
    return out | {"failed": len(failed), "failures": failed}


def curve(found: Mapping[int, Interval]) -> dict[str, Any]:
    return {f"N = {n}": asdict(interval) for n, interval in found.items()}


def summary(seen: Mapping[str, Sequence[Found]], said: str) -> str:
    found = next(iter(seen.values()))
    prompts = dict.fromkeys(json.dumps({**(row.prompt.spec or {}), "prompt": row.prompt.text}) for row in found)
    which = " (the official set)" if digest([row.prompt for row in found]) == OFFICIAL_PROMPTS else ""
    return f"{len(prompts)} prompts{which}, {len(found)} pictures of each model. {said[:1].upper()}{said[1:]}."


def digest(prompts: Sequence[Prompt]) -> str:
    """sha256 of the different prompts with their checks, whatever their order."""
    rows = {json.dumps({**(p.spec or {}), "prompt": p.text}, sort_keys=True) for p in prompts}
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def shown(
    run: Run, settings: Settings, seen: Mapping[str, Sequence[Found]], correct: Mapping[str, Sequence[float]]
) -> Iterator[dict[str, Any]]:
    """SHOWN rows for the page, spread over the prompts; none where the pictures are not at hand."""
    first = next(iter(seen.values()))
    for row in sorted({i * len(first) // SHOWN for i in range(SHOWN)}):
        files = {name: folder_of(run, settings, name) / found[row].file for name, found in seen.items()}
        if all(path.is_file() for path in files.values()) and not any(found[row].error for found in seen.values()):
            right = {key_of(name): correct[name][row] == 1 for name in seen}
            paths = {key_of(name): str(path.resolve()) for name, path in files.items()}
            yield {"prompt": first[row].prompt.text, "files": paths, "correct": right}


def folder_of(run: Run, settings: Settings, name: str) -> Path:
    return Path(name) if is_stored(Path(name)) else place(run.folder, name, settings) / "samples"
