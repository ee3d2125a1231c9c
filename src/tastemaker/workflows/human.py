"""Which of two runs people prefer: blind pairs go to the annotation app, and come back as a win rate.

`tastemaker evaluate human RUN RUN` asks where nobody was asked yet, and reads what was said when it is called again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..annotate import store
from ..annotate.database import Item
from ..annotate.figures import progress
from ..annotate.presets import preset_settings
from ..annotate.projects import View, all_projects, create_project, find_project
from ..annotate.store import NewItem
from ..errors import TastemakerError
from ..records import Interval
from .annotate import DATABASE
from .drawn import LIST, drawn_by

LEAST = 2  # answers that an interval needs
MODELS = ("model.safetensors", "model_index.json")  # what makes a folder a model
SEEDS = range(4)


@dataclass(frozen=True)
class Preferred:
    """What people said of two runs; intervals are 95 %.

    win_rate: of the second run, a tie or "both bad" being half a win, by a bootstrap over prompts. decided: of the
    answers that prefer one, Wilson's interval; None where none does.
    """

    runs: tuple[str, str]
    win_rate: Interval
    decided: Interval | None
    ties: int
    answers: int

    def words(self) -> str:
        first, second = self.runs
        said = [f"{second} preferred to {first}: {_words(self.win_rate)}, a tie being half a win"]
        if self.decided is not None:
            said.append(f"of the {self.decided.count} that prefer one: {_words(self.decided)}")
        return "\n".join([*said, f"{self.answers} answers, {self.ties} without a preference"])


def _words(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def ask_or_read(
    run_a: str,
    run_b: str,
    database: str = DATABASE,
    project: str = "",
    prompts: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    overlap: int = 1,
    limit: int = 0,
    out: Path = Path("human"),
) -> str:
    """Ask people as `ask_people` does; where they were asked before, write the run `out` with their win rate.

    Returns what to tell: what to do next, or the figures and the run's page. Raises TastemakerError where the project
    is about other runs, and where `out` holds anything but an earlier reading of these two.
    """
    name = project or project_name(run_a, run_b)
    opened = store.open_store(database)
    with opened.reading() as session:
        known = next((p for p in all_projects(session) if p.name == name), None)
        if known is not None:
            _same_runs(session, known, run_a, run_b)
            counts = progress(session, known.id)
    if known is None:
        ask_people(run_a, run_b, database, name, overlap, limit, prompts, seeds)
        return f"asked: blind pairs are in project '{name}' of {database}\n{next_steps(database)}"
    done = f"{counts['counted']} of {counts['wanted']} answers so far"
    if counts["counted"] < LEAST:
        return f"{done} in project '{name}' of {database}; an interval needs {LEAST}\n{next_steps(database)}"
    found = read_people(database, name)
    return f"{found.words()}\n{done}\n{write_preferred(found, out)}"


def project_name(run_a: str | Path, run_b: str | Path) -> str:
    return f"{Path(run_a).name} or {Path(run_b).name}"


def next_steps(database: str) -> str:
    """What a person does between asking and reading."""
    return (
        "next:\n"
        f"  tastemaker annotate user NAME --database {database}         # an account for each person\n"
        f"  tastemaker annotate serve --no-demo --database {database}   # where they answer\n"
        "  the same command again, for the win rate"
    )


def _same_runs(session: Session, project: View, run_a: str, run_b: str) -> None:
    hidden = session.execute(select(Item.hidden).where(Item.project_id == project.id).limit(1)).scalar() or []
    asked = [h.get("model", "") for h in hidden]
    if asked != [str(run_a), str(run_b)]:
        raise TastemakerError(
            f"project '{project.name}' asks about {' and '.join(asked) or 'no runs'}, not {run_a} and {run_b}; "
            "choose another name with --project"
        )


def ask_people(
    run_a: str | Path,
    run_b: str | Path,
    database: str = DATABASE,
    project: str = "",
    overlap: int = 1,
    limit: int = 0,
    prompts: Path | None = None,
    seeds: Sequence[int] = SEEDS,
) -> str:
    """Put a blind pair for each prompt and seed that both runs drew into a new project; returns its name.

    A run is a folder with `pictures.jsonl` (columns file, prompt, seed), as `tastemaker sample` writes it, itself or
    in `samples/`; or a model, which draws `prompts` (the embedded ones if None) with each of `seeds` first. overlap:
    people who answer each pair. limit: at most so many pairs, 0 for all.
    Raises TastemakerError where the runs share no prompt and seed, and where a run is neither.
    """
    name = project or project_name(run_a, run_b)
    with tempfile.TemporaryDirectory() as drawn:
        folders = [
            pictures_of(str(run), prompts, seeds, Path(drawn, side)) for run, side in ((run_a, "a"), (run_b, "b"))
        ]
        a, b = (drawn_by(folder) for folder in folders)
        items = blind_pairs(a, b, (str(run_a), str(run_b)))
        with store.open_store(database).session() as session:
            key = create_project(session, name, preset_settings("pairs", overlap=overlap))
            store.add_items(session, key, items[: limit or None])
    return name


def pictures_of(run: str, prompts: Path | None, seeds: Sequence[int], out: Path) -> Path:
    """The folder with the pictures of a run; a model draws them into `out`."""
    folder = Path(run)
    known = next((f for f in (folder, folder / "samples") if (f / LIST).is_file()), None)
    if known is not None:
        return known
    if folder.is_dir() and not any((folder / name).is_file() for name in MODELS):
        raise TastemakerError(f"{run} holds no pictures.jsonl and no model; draw with: tastemaker sample --out {run}")
    from .sample import sample_to_folder

    sample_to_folder(run, (), prompts, seeds, out)
    return out


def blind_pairs(
    a: dict[tuple[str, int], Path], b: dict[tuple[str, int], Path], runs: tuple[str, str]
) -> list[NewItem]:
    """A pair for each prompt and seed that both drew. Raises TastemakerError where there is none."""
    hidden = [{"model": run} for run in runs]
    found = [NewItem(key[0], [a[key], b[key]], key[0], hidden, {"seed": key[1]}) for key in a if key in b]
    if not found:
        raise TastemakerError(f"{runs[0]} and {runs[1]} share no prompt and seed; draw both with the same ones")
    return found


def read_people(database: str, project: str) -> Preferred:
    """How often the second run was preferred to the first; skips are left out. Raises TastemakerError before two
    answers."""
    from ..evaluation.intervals import bootstrap_mean, wilson

    with store.open_store(database).reading() as session:
        votes = [v for v in store.votes(session, find_project(session, project).id) if v.choice != "skip"]
    if len(votes) < LEAST:
        raise TastemakerError(f"project '{project}' has {len(votes)} answers; at least {LEAST} are needed")
    worth = {"a": 0.0, "b": 1.0}
    won, lost = (sum(v.choice == c for v in votes) for c in "ba")
    hidden = votes[0].about.get("hidden", ({}, {}))
    first, second = (h.get("model") or word for h, word in zip(hidden, ("the first run", "the second run")))
    return Preferred(
        (first, second),
        bootstrap_mean([worth.get(v.choice, 0.5) for v in votes], [v.prompt_id for v in votes]),
        wilson(won, won + lost) if won + lost else None,
        len(votes) - won - lost,
        len(votes),
    )


def write_preferred(found: Preferred, out: Path) -> Path:
    """A run with `result.json` and a page; an earlier one of the same two runs is replaced. Returns the page."""
    from ..report.runs import write_reports
    from .evaluate import Settings
    from .runs import Run

    settings = Settings("human", on=found.runs[1], against=found.runs[0])
    run = Run.create(out, settings, overwrite=_is_earlier(out, settings))
    run.write_result(figures_of(found))
    return write_reports([run.folder])[0]


def _is_earlier(out: Path, settings: Any) -> bool:
    import yaml

    from .configs import plain

    path = out / "config.yaml"
    return path.is_file() and yaml.safe_load(path.read_text()) == plain(settings)


def figures_of(found: Preferred) -> dict[str, Any]:
    """As report/comparison.py reads it."""
    people = {"win rate, a tie half a win": asdict(found.win_rate)}
    if found.decided is not None:
        people["win rate where one is preferred"] = asdict(found.decided)
    summary = (
        f"{found.answers} answers of people who saw blind pairs, {found.ties} without a preference: how often they "
        f"preferred {found.runs[1]} to {found.runs[0]}. Intervals are 95 %."
    )
    return {"summary": summary, "second": {"label": found.runs[1], "people": people}}
