"""Run folders: what they hold, and that a run which is killed goes on as if nothing had happened."""

import io
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.errors import TastemakerError
from tastemaker.records import StepRecord
from tastemaker.report.metrics import read_metrics
from tastemaker.workflows.checkpoints import complete_checkpoints, newest_checkpoint
from tastemaker.workflows.follow import follow
from tastemaker.workflows.runs import Run, open_run
from tastemaker.workflows.versions import weight_hash

SCRIPT = Path(__file__).with_name("training_process.py")


@dataclass(frozen=True)
class Config:
    steps: int = 4
    seed: int = 1
    betas: tuple[float, float] = (0.9, 0.95)


def start(way, folder, *words):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), way, str(folder), *words], stderr=subprocess.PIPE, text=True
    )


def wait_for_lines(folder, count):
    """Until so many steps are logged."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and len(path.read_bytes().splitlines()) >= count:
            return
        time.sleep(0.002)
    raise AssertionError("the training process made no steps")


def test_killed_and_interrupted_a_run_ends_bit_equal(tmp_path):
    folder = tmp_path / "run"
    process = start("OUT", folder, "pause=0.01")
    for lines in (3, 22):  # before the first checkpoint, and after some
        wait_for_lines(folder, lines)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        process = start("RESUME", folder)
    wait_for_lines(folder, 33)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and f"--resume {folder}" in errors
    newest = complete_checkpoints(folder / "checkpoints")[0]
    assert int(newest.stem[5:]) == len(read_metrics(folder / "metrics.jsonl")) < 60
    _, errors = (process := start("RESUME", folder)).communicate(timeout=60)
    assert process.returncode == 0, errors

    runpy.run_path(str(SCRIPT))["main"]("OUT", str(tmp_path / "whole"))  # never interrupted
    ours, whole = (torch.load(f / "final.pt", weights_only=True) for f in (folder, tmp_path / "whole"))
    assert ours["step"] == whole["step"] == 60
    assert all(torch.equal(v, ours["network"][k]) for k, v in whole["network"].items())
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == list(range(1, 61))
    losses = [[row["loss"] for row in read_metrics(f / "metrics.jsonl")] for f in (folder, tmp_path / "whole")]
    assert losses[0] == losses[1]


def counting(state, until):
    while state.step < until:
        yield StepRecord(state.step + 1, state.update(state.network.weight.pow(2).sum()))


@pytest.fixture
def state():
    return begin(nn.Linear(3, 2, bias=False), OptimiserConfig(learning_rate=0.1))


def test_a_run_folder_says_everything(tmp_path, state):
    run = Run.create(
        tmp_path / "run", Config(), ["tastemaker", "train"], weights={"base": weight_hash(state.network)}
    )
    last = follow(run, counting(state, 7), state, 7, every_steps=2)
    assert last.step == 7 and last.seconds > 0
    assert (tmp_path / "run/config.yaml").read_text() == "steps: 4\nseed: 1\nbetas:\n- 0.9\n- 0.95\n"
    versions = json.loads((run.folder / "versions.json").read_text())
    assert versions["torch"] == torch.__version__ and versions["seed"] == 1 and len(versions["weights"]["base"]) == 64
    assert [p.name for p in complete_checkpoints(run.checkpoints)] == ["step-000007.pt", "step-000006.pt"]
    assert len(list(run.checkpoints.iterdir())) == 4  # nothing partial beside them
    assert follow(run, counting(state, 7), state, 7) is None


def test_a_torn_checkpoint_is_not_read(tmp_path, state):
    run = Run.create(tmp_path / "run", Config())
    follow(run, counting(state, 6), state, 6, every_steps=3)
    newest = run.checkpoints / "step-000006.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    (run.checkpoints / "step-000009.pt").write_bytes(b"never finished")  # without its checksum
    fresh = begin(nn.Linear(3, 2, bias=False), OptimiserConfig(learning_rate=0.1))
    with pytest.warns(UserWarning, match="step-000006.pt is damaged"):
        assert run.restore(fresh) == 3
    assert [row["step"] for row in read_metrics(run.folder / "metrics.jsonl")] == [1, 2, 3]
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-000003.pt", "step-000003.sha256"]


def test_a_torn_last_line_of_metrics_is_tolerated_and_others_are_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    with pytest.raises(TastemakerError, match="line 2"):
        read_metrics(path)


def test_another_checkpoint_format_is_one_clear_error(tmp_path, state, monkeypatch):
    run = Run.create(tmp_path / "run", Config())
    monkeypatch.setattr("tastemaker.workflows.checkpoints.FORMAT", 99)
    run.save(state)
    monkeypatch.undo()
    with pytest.raises(TastemakerError, match="checkpoint format 99, this version of tastemaker reads format 1"):
        run.restore(state)


def test_resume_refuses_what_would_not_be_bit_equal(tmp_path):
    folder = tmp_path / "run"
    Run.create(folder, Config(), weights={"base": "aa"})
    with pytest.raises(TastemakerError, match=r"steps: 4 -> 9.*weights.base: 'aa' -> 'bb'"):
        Run.resume(folder, replace(Config(), steps=9), {"base": "bb"})
    versions = json.loads((folder / "versions.json").read_text())
    (folder / "versions.json").write_text(json.dumps(versions | {"torch": "1.0"}))
    with pytest.raises(TastemakerError, match="torch: '1.0' -> "):
        Run.resume(folder, Config(), {"base": "aa"})
    with pytest.raises(TastemakerError, match="is not a run"):
        Run.resume(tmp_path, Config())


def test_resume_takes_the_number_of_threads_of_the_run(tmp_path):
    threads = torch.get_num_threads()
    Run.create(tmp_path / "run", Config())
    try:
        torch.set_num_threads(threads + 1)
        Run.resume(tmp_path / "run", Config())
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)


def test_folders_in_use_are_not_written_over(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(TastemakerError, match="is not a run; move it away"):
        Run.create(tmp_path, Config(), overwrite=True)
    Run.create(tmp_path / "run", Config())
    (tmp_path / "run/notes.txt").write_text("mine")
    with pytest.raises(TastemakerError, match="already holds a run; go on with it by --resume"):
        Run.create(tmp_path / "run", Config())
    Run.create(tmp_path / "run", replace(Config(), steps=5), overwrite=True)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    with pytest.raises(TastemakerError, match="--out FOLDER"):
        open_run(Config(), None, None)


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_the_last_checkpoint(tmp_path, state):
    run = Run.create(tmp_path / "run", Config())
    kept = run.save(state).read_bytes()
    state.update(state.network.weight.sum())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the kernel refuses longer files
    try:
        with pytest.raises(TastemakerError, match=r"too big: could not write .*checkpoint is step-000000.pt"):
            run.save(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_checkpoint(run.checkpoints).read_bytes() == kept
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-000000.pt", "step-000000.sha256"]


def test_a_full_disk_while_logging_is_one_sentence(tmp_path):
    run = Run.create(tmp_path / "run", Config())
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(TastemakerError, match="the disk is full: could not write"):
        run.log(StepRecord(1, {"loss": 1.0}))


def test_a_result_holds_plain_values(tmp_path):
    run = Run.create(tmp_path / "run", Config())
    path = run.write_result({"config": Config(), "folder": tmp_path, "values": (1, 2.5, float("nan"))})
    assert json.loads(path.read_text())["values"] == [1, 2.5, None]
    run.log(StepRecord(1, {"loss": float("inf"), "count": 3}))
    assert read_metrics(run.folder / "metrics.jsonl") == [{"step": 1, "seconds": 0.0, "loss": None, "count": 3}]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_terminals_and_in_logs(tmp_path, state, terminal):
    run = Run.create(tmp_path / "run", Config())
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    follow(run, counting(state, 40), state, 40, console=console)
    assert ("40/40" in text.getvalue()) and ("loss" in text.getvalue())
    assert terminal == ("\x1b[" in text.getvalue())


def test_sinks_get_every_record_and_are_closed_on_errors(tmp_path, state):
    class Sink:
        seen, closed = [], 0

        def log(self, record):
            Sink.seen.append(record.step)

        def close(self):
            Sink.closed += 1

    def failing():
        yield from counting(state, 3)
        raise TastemakerError("step 4: loss is not finite")

    run = Run.create(tmp_path / "run", Config())
    with pytest.raises(TastemakerError, match="step 4"):
        follow(run, failing(), state, 9, sinks=[Sink()])
    assert Sink.seen == [1, 2, 3] and Sink.closed == 1
