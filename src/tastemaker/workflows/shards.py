"""Score a data set of shards with rewards: what is new is scored, committed and never touched again.

Shards go out to a crew (crews.py), which writes files of scores; this process alone writes the ledger. So a kill at
any moment costs the shards at hand, and running the same command again goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..data.shard_ledger import Entry, ShardLedger, open_ledger
from ..data.shard_scores import PARTIAL
from ..data.shards import SCORES, Shard, Words, holds_files_of_shards, list_shards, shard_hash, stamp
from ..devices import best_device
from ..errors import TastemakerError
from ..protocols import Reward
from ..records import Provenance
from ..rewards.table import load_rewards
from .crews import Crew, alone, on_ray, processes
from .score import score_folder
from .shard_worker import Failed, Outcome, Work, load_on

Columns = Mapping[str, tuple[str, Provenance]]  # what scores are called -> the reward's name and versions
SHOWN = 10  # errors and faults that the summary prints


@dataclass(frozen=True)
class Options:
    """How shards are scored."""

    words: Words = field(default_factory=Words)  # which words the pictures are scored against
    batch: int = 64  # pictures that a reward sees at a time
    workers: int = 0  # processes or actors; 0: none but this one, and on Ray one per GPU or processor
    ray: str = ""  # a cluster's address, "auto" or "local"; none: this machine
    again: bool = False  # score anew what was changed since: shards, and columns of another version or other words
    verify: bool = False  # read every scored shard to compare its hash, not only those with a new size or time


@dataclass
class Report:
    """What one call did. shards, rows: scored now; kept: shards that were scored before; gone: of earlier calls, and
    not in the input now; problems: a sentence each."""

    shards: int = 0
    rows: int = 0
    unscored: int = 0
    kept: int = 0
    gone: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def score(
    rewards: Sequence[str], path: Path, out: Path | None, options: Options, console: Console | None = None
) -> None:
    """A table of pictures where `out` ends in .parquet, or is not given and `path` holds no tars or Parquet files;
    else shards, whose scores lie in `out` or beside them."""
    if out is None and not holds_files_of_shards(path):
        out = Path("scores.parquet")
    if out is None or out.suffix != ".parquet":
        score_shards(rewards, path, out, options, console)
    elif path.suffix in (".tar", ".parquet"):
        raise TastemakerError(f"the scores of a shard such as {path} go into a folder: give --out DIR, or no --out")
    else:
        score_folder(load_rewards(rewards), path, out, options.words.prompt, options.batch, console)


def score_shards(
    rewards: Sequence[str], path: Path, out: Path | None, options: Options, console: Console | None = None
) -> Report:
    """Score every shard of `path` (see data/shards.py) that has no scores of these rewards yet; `out` None: beside.

    Files: see data/shard_scores.py and data/shard_ledger.py. Raises TastemakerError before anything is scored where a
    reward has another version, or other words, than the scores in `out`; at the end, when all else is done and kept,
    where shards were damaged, changed, unreadable or failed; at once where a reward fails.
    """
    shards, console = list_shards(path), console or Console(stderr=True)
    folder = (out or (path if path.is_dir() else path.parent)).resolve()
    loaded = load_on(rewards, str(best_device()))
    columns = {options.words.column(r.name): (r.name, r.provenance) for r in loaded}
    began, report = time.monotonic(), Report()
    with open_ledger(folder) as ledger:
        _clean(folder)
        if not options.again:
            _require_same(ledger, columns, options.words, folder)
        work = list(_work(shards, ledger, columns, folder, options, report))
        with closing(_crew(rewards, loaded, work, options)) as outcomes:
            _commit(outcomes, len(work), ledger, report, console)
        _clean(folder)
    report.seconds = time.monotonic() - began
    _summary(report, folder, console)
    return report


def _crew(names: Sequence[str], loaded: list[Reward], work: list[Work], options: Options) -> Crew:
    """Whoever scores; where that is others, the rewards that were loaded here make room for theirs."""
    if options.ray:
        loaded.clear()
        return on_ray(names, work, options.workers, options.ray)
    if options.workers > 1 and len(work) > 1:
        loaded.clear()
        return processes(names, work, options.workers)
    return alone(loaded, work)


def _clean(folder: Path) -> None:
    """Take away what a killed command or worker left half-written; the ledger's lock says that nobody is writing."""
    for partial in folder.rglob(f".*{SCORES}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


def _require_same(ledger: ShardLedger, columns: Columns, words: Words, folder: Path) -> None:
    for shard, scored in ledger.scored.items():
        for name in columns.keys() & scored.keys():
            was = scored[name].columns[name]
            for what, before, now in (("is", was.provenance, columns[name][1]), ("gets", was.words, str(words))):
                if before != now:
                    raise TastemakerError(
                        f"'{name}' {what} {now}, but {shard} in {folder} was scored with {before}; take another "
                        "--out, or score all anew with --again"
                    )


def _work(
    shards: Sequence[Shard], ledger: ShardLedger, columns: Columns, folder: Path, options: Options, report: Report
) -> Iterator[Work]:
    """What is left to do; what is wrong with shards that were scored goes into the report."""
    report.gone = len(ledger.scored.keys() - {shard.name for shard in shards})
    for shard in shards:
        scored = ledger.scored.get(shard.name, {})
        changed = next((e for e in _distinct(scored) if _changed(shard, e, options.verify, ledger)), None)
        if changed and not (changed.fault or options.again):
            report.problems.append(
                f"{shard.name} was changed since it was scored (sha256 {changed.sha256[:12]} then, "
                f"{shard_hash(shard)[:12]} now); its scores stay, --again replaces them"
            )
            continue
        wanted = {
            reward: name
            for name, (reward, facts) in columns.items()
            if changed or not _whole(scored.get(name), name, facts, str(options.words), folder)
        }
        if wanted:
            # named so that a process with another working folder finds it
            found = replace(shard, path=shard.path.resolve())
            yield Work(found, folder, wanted, options.words, options.batch)
            continue
        report.kept += 1
        report.problems += [entry.fault for entry in _distinct(scored) if entry.fault]


def _distinct(scored: Mapping[str, Entry]) -> list[Entry]:
    """A shard's commits, each with the columns alone for which it counts."""
    entries = {id(entry): entry for entry in scored.values()}.values()
    return [replace(e, columns={n: c for n, c in e.columns.items() if scored.get(n) is e}) for e in entries]


def _changed(shard: Shard, entry: Entry, verify: bool, ledger: ShardLedger) -> bool:
    """Whether it has another content. A file that was only copied or touched has another stamp and the same hash;
    the ledger then learns the new stamp, so that it need not be read again."""
    now = stamp(shard)
    if now == entry.stamp and not verify:
        return False
    if shard_hash(shard) != entry.sha256:
        return True
    if now != entry.stamp:
        ledger.commit(replace(entry, stamp=now))
    return False


def _whole(entry: Entry | None, name: str, now: Provenance, words: str, folder: Path) -> bool:
    if entry is None or (entry.columns[name].provenance, entry.columns[name].words) != (now, words):
        return False
    file = folder / entry.columns[name].file
    return file.is_file() and file.stat().st_size == entry.columns[name].size


def _commit(outcomes: Iterator[Outcome], count: int, ledger: ShardLedger, report: Report, console: Console) -> None:
    with _progress(console) as bar:
        task = bar.add_task("scoring shards", total=count)
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                if outcome.stop:
                    raise TastemakerError(outcome.reason)
                report.problems.append(outcome.reason)
            else:
                ledger.commit(outcome)
                report.shards += 1
                report.rows += outcome.rows
                report.unscored += outcome.unscored
                report.examples += outcome.examples
                report.problems += [outcome.fault] if outcome.fault else []
            bar.advance(task)


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console)


def _summary(report: Report, folder: Path, console: Console) -> None:
    """To the console, and the problems as one error."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    rate = report.rows / max(report.seconds, 1e-9)
    say(f"wrote {folder}: {report.shards} shards, {report.rows} pictures, {rate:.1f} a second")
    for count, text in ((report.kept, "shards were scored before"), (report.gone, "more are not there any more")):
        if count:
            say(f"{count} {text}; their scores stay")
    for text in report.examples[:SHOWN]:
        say(f"no score: {text}")
    if report.unscored > SHOWN:
        say(f"{report.unscored} pictures have no score; the column `error` of their shards says why")
    if report.problems:
        more = len(report.problems) - SHOWN
        told = "; ".join(report.problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise TastemakerError(f"{told}. All other shards are scored")
