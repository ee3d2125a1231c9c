"""Consume the records of a training loop: log them, show progress, write checkpoints, stop cleanly when asked to."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..ranks import any_of, first, mean
from ..records import StepRecord
from .checkpoints import Resumable
from .runs import Run
from .sinks import Sink


def follow(
    run: Run,
    records: Iterable[StepRecord],
    state: Resumable,
    total: int,
    sinks: Sequence[Sink] = (),
    every_seconds: float = 120.0,
    every_steps: int | None = None,
    console: Console | None = None,
) -> StepRecord | None:
    """Drive a training loop to its end. Returns its last record, None where no step was left to do.

    records: what the algorithm's `train` yields, one per step, after `state.step` has moved on. To do something on
    the way (a sample grid), wrap the iterator in a generator of your own. A checkpoint is written after
    `every_seconds`, or after `every_steps` steps if given, and at the end. On Ctrl-C or SIGTERM the step under way
    is finished, a checkpoint written, and KeyboardInterrupt raised; a second Ctrl-C stops at once. Where several
    processes train, figures are means over them, and a signal to one stops all.
    """
    console = console or Console(stderr=True, quiet=not first())
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        stop = stack.enter_context(_stop_signals())
        show = stack.enter_context(_bar(console, total) if console.is_terminal else _lines(console, total))
        record, saved, stopped = None, _Clock(state.step), False
        for record in _timed(records):
            record = replace(record, values=mean(record.values))
            run.log(record)
            for sink in sinks:
                sink.log(record)
            show(record)
            stopped, due = any_of(stop.is_set(), saved.due(state.step, every_seconds, every_steps))
            if stopped:
                break
            if due:
                run.save(state)
                saved = _Clock(state.step)
        if saved.step != state.step:
            run.save(state)
    if any_of(stopped or stop.is_set())[0]:
        console.print(f"stopped after step {state.step}; go on with --resume {run.folder}", soft_wrap=True)
        raise KeyboardInterrupt
    return record


class _Clock:
    """Since when, and since which step, nothing was saved."""

    def __init__(self, step: int):
        self.step, self.time = step, time.monotonic()

    def due(self, step: int, every_seconds: float, every_steps: int | None) -> bool:
        if every_steps is not None:
            return step - self.step >= every_steps
        return time.monotonic() - self.time >= every_seconds


def _timed(records: Iterable[StepRecord]) -> Iterator[StepRecord]:
    """Each record with the time its step took, unless its algorithm measured that itself."""
    before = time.perf_counter()
    for record in records:
        yield record if record.seconds else replace(record, seconds=time.perf_counter() - before)
        before = time.perf_counter()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that no step is cut in two; the second Ctrl-C acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return

    def ask(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def figures_of(record: StepRecord, most: int = 4) -> str:
    """The first few figures on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in list(record.values.items())[:most])


@contextmanager
def _bar(console: Console, total: int):
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task("", total=total)
        yield lambda record: progress.update(task, completed=record.step, description=figures_of(record))


@contextmanager
def _lines(console: Console, total: int):
    """About twenty lines over the run, for logs and pipes."""

    def show(record: StepRecord) -> None:
        if record.step % max(1, total // 20) == 0 or record.step == total:
            console.print(f"step {record.step}/{total}  {figures_of(record)}", highlight=False, soft_wrap=True)

    yield show
