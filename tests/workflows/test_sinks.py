"""Sinks get every record once; a sink whose package is absent names the extra."""

import sys
import types
from dataclasses import dataclass

import pytest

from tastemaker.errors import MissingExtra, UnknownName
from tastemaker.records import StepRecord
from tastemaker.workflows.runs import Run
from tastemaker.workflows.sinks import open_sinks


@dataclass(frozen=True)
class Config:
    steps: int = 2


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Config())


def test_tensorboard_event_files_hold_the_figures(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks("tensorboard", run)
    for step in (1, 2):
        sink.log(StepRecord(step, {"loss": step / 2, "odd": float("nan")}))
    sink.close()
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 1.0)]
    assert events.Tags()["scalars"] == ["loss"]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_online_sinks_are_opened_fed_and_closed(run, monkeypatch, name):
    calls = []
    fake = types.SimpleNamespace(
        init=lambda **k: calls.append(("init", k["name"], k["config"])),
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setitem(sys.modules, name, fake)
    (sink,) = open_sinks(name, run)
    sink.log(StepRecord(3, {"loss": 0.5}))
    sink.close()
    assert calls == [("init", "run", {"steps": 2}), (3, {"loss": 0.5}), "finish"]


def test_missing_packages_and_unknown_names_are_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tastemaker\[track\]'"):
        open_sinks("wandb", run)
    with pytest.raises(UnknownName, match="nearest known: tensorboard"):
        open_sinks("tensorbord", run)
    assert open_sinks("", run) == []
