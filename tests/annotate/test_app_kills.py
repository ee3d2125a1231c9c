"""The server is killed three times under load: every acknowledged vote is there, none twice, and the log is whole."""

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "annotate.py"


@pytest.fixture(scope="module")
def load():
    spec = importlib.util.spec_from_file_location("annotate_load", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_kill_minus_nine_under_load(load, tmp_path):
    path = tmp_path / "load.db"
    project = load.fill(path, annotators=25, items=900)
    server = load.Server(path)
    try:
        kept = asyncio.run(load.run(server, project, 25, 0.0, kills=3, gap=0.25))
    finally:
        server.kill()
    assert len(kept.answers) > 50 and kept.refused == []
    assert load.faults(path, kept) == []


def test_a_lost_answer_would_be_noticed(load, tmp_path):
    path = tmp_path / "load.db"
    load.fill(path, annotators=1, items=2)
    assert load.faults(path, load.Kept(answers={"0-abc": 17})) == ["answer 0-abc is lost"]
