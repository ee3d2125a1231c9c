"""`tastemaker evaluate questions`: a judge answers questions about every picture; all in RUN/answers.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ..data.files import json_lines, read_text, write_text
from ..data.questions import Question, read_questions
from ..errors import TastemakerError
from ..evaluation.questions import Answered, by_length, by_skill, overall
from ..records import Interval
from ..report.runs import write_reports
from ..rewards.endpoint import Endpoint
from ..rewards.question_judge import SUFFIX, Answer, ask
from .geneval_pictures import LIST, is_stored, read_stored
from .reading import Job
from .runs import Run, make_room
from .score import group_by_size, list_jobs

BATCH = 8  # pictures at a time


@dataclass(frozen=True)
class Settings:
    """What was measured; kept as the run's config.yaml."""

    on: str
    questions: str
    judge: str
    suffix: str = SUFFIX
    what: str = "questions"
    seed: int = 0


def evaluate_questions(
    pictures: Path, questions: Path, judge: str, suffix: str = SUFFIX, workers: int = 8, out: Path = Path("questions")
) -> Path:
    """Scores over all pictures whose prompt has questions. Returns the page.

    Raises TastemakerError where no picture's prompt has any, or no picture got all its answers.
    """
    make_room(out)
    wanted = read_questions(questions)
    jobs = jobs_with(pictures, wanted)
    endpoint = Endpoint.of(judge, workers=workers).named()
    run = Run.create(out, Settings(str(pictures), str(questions), judge, suffix))
    rows = answered(endpoint, jobs, wanted, suffix, run.folder / "answers.jsonl")
    whole = sum(row.whole for row in rows)
    if not whole:
        raise TastemakerError(
            f"the judge at {endpoint.url} answered every question of none of the {len(rows)} pictures"
        )
    run.write_result(result_of(rows, pictures.name, endpoint.model or judge, len(rows) - whole))
    return write_reports([run.folder])[0]


def jobs_with(pictures: Path, wanted: Mapping[str, Sequence[Question]]) -> list[Job]:
    """The pictures that can be asked about; the others are counted."""
    jobs = listed(pictures)
    kept = [Job(i, job.name, job.path, job.prompt) for i, job in enumerate(j for j in jobs if j.prompt in wanted)]
    if not kept:
        raise TastemakerError(
            f"none of the {len(jobs)} pictures of {pictures} has a prompt with questions; the first prompt is "
            f"'{jobs[0].prompt}', the first with questions '{next(iter(wanted))}'; they must be equal, word for word"
        )
    if len(kept) < len(jobs):
        print(f"left out: {len(jobs) - len(kept)} of {len(jobs)} pictures, whose prompts have no questions")
    unseen = wanted.keys() - {job.prompt for job in kept}
    if unseen:
        print(f"no picture of {len(unseen)} of {len(wanted)} prompts with questions, such as '{min(unseen)}'")
    return kept


def listed(path: Path) -> list[Job]:
    """With their prompts, from pictures.jsonl, GenEval's layout, a CSV, or .txt files beside them."""
    if (path / LIST).is_file():
        rows = [row for _, row in json_lines(read_text(path / LIST), str(path / LIST))]
        return [Job(i, row["file"], path / row["file"], row["prompt"]) for i, row in enumerate(rows)]
    if is_stored(path):
        stored = read_stored(path)
        return [Job(i, f, path / f, p.text) for i, (f, p) in enumerate(zip(stored.files, stored.prompts))]
    return list_jobs(path)


def answered(
    endpoint: Endpoint, jobs: Sequence[Job], wanted: Mapping[str, Sequence[Question]], suffix: str, file: Path
) -> list[Answered]:
    """One row a picture, in the order of the jobs, and a line each in `file`. A picture that cannot be read, or of
    which a question got no answer, has no score and is named."""
    errors: dict[int, str] = {}
    answers: dict[int, list[Answer]] = {}
    parts = track(
        group_by_size(jobs, BATCH, {}, errors), "asking", -(-len(jobs) // BATCH), console=Console(stderr=True)
    )
    for ready, images in parts:
        asked = [(row, q.text, q.answer) for row, job in enumerate(ready) for q in wanted[job.prompt]]
        found = iter(ask(endpoint, list(images), asked, suffix))
        answers |= {job.index: [next(found) for _ in wanted[job.prompt]] for job in ready}
    for index, reason in errors.items():
        answers[index] = [Answer(error=reason) for _ in wanted[jobs[index].prompt]]
    lines = [line for job in jobs for line in lines_of(job, wanted[job.prompt], answers[job.index])]
    write_text(file, "".join(lines))
    for job in jobs:
        for error in {a.error for a in answers[job.index] if a.error}:
            print(f"no score: {job.name}: {error}")
    return [row_of(job, wanted[job.prompt], answers[job.index]) for job in jobs]


def row_of(job: Job, questions: Sequence[Question], answers: Sequence[Answer]) -> Answered:
    return Answered(job.prompt, questions, [a.probability for a in answers], [a.likeliest for a in answers])


def lines_of(job: Job, questions: Sequence[Question], answers: Sequence[Answer]) -> list[str]:
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        said = {"error": answer.error} if answer.error else {"probability": answer.probability}
        about = {"file": job.name, "prompt": job.prompt, "question": question.text, "answer": question.answer}
        rows.append({**about, "skill": question.skill, **said, "likeliest": answer.likeliest})
    return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]


def result_of(rows: Sequence[Answered], name: str, judge: str, failed: int) -> dict[str, Any]:
    """`result.json`: the scores, by skill and by length; NaN groups are left out."""
    groups = {"soft_tifa": overall(rows), "by_skill": by_skill(rows), "by_length": by_length(rows)}
    plain = {group: {k: _plain(v) for k, v in found.items() if _held(v)} for group, found in groups.items()}
    number = sum(len(row.questions) for row in rows)
    summary = f"{len(rows)} pictures, {number} questions, answered by {judge}; {failed} pictures without a score."
    return {"title": "Questions", "summary": summary, "pictures_asked": {"label": name, **plain, "failed": failed}}


def _held(value: Interval | float) -> bool:
    return isinstance(value, Interval) or not math.isnan(value)


def _plain(value: Interval | float) -> Any:
    return asdict(value) if isinstance(value, Interval) else value
