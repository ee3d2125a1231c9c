"""`search reflect --export-groups`, `train self-correction` on them or on the world, `way=correct` with the run."""

import json

import pytest
import torch
from small import tiny_flow, tiny_masked
from test_commands import refused

from tastemaker.algorithms import self_correction
from tastemaker.cli.main import main
from tastemaker.data.corrections import read_corrections
from tastemaker.report.metrics import read_metrics
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.self_correction import train_self_correction

REWARD = """
import torch


class Judge:
    name, differentiable, range, asked = "judge", False, (-10.0, 10.0), 0

    def score(self, images, prompts):  # at first nothing is right, and the second of what is drawn again is
        self.asked += 1
        return torch.full((len(images),), -1.0) if self.asked == 1 else torch.arange(-0.5, len(images) - 0.5)

    def clear(self, images, prompts, progress):
        return torch.zeros(len(images))

    potential = clear

    def critique(self, images, prompts):
        return ["not as asked: " + p.text.split()[-1] for p in prompts]

    def faults(self, images, prompts):
        grid = images.new_zeros(len(images), 2, 2)
        grid[:, 0] = 0.9
        return grid


judge, later = Judge(), Judge()
later.asked = 1


def count(images, prompts):
    return (images > 0.5).float().mean((1, 2, 3))
"""
TRAIN = ["model=masked", "reward=reward.py:count", "steps=4", "batch_size=2", "watch.every=2", "watch.pictures=3",
         "optimiser.learning_rate=0.003"]  # fmt: skip
SEARCH = ["--prompt", "a photo of a cat", "--seed", "0..2", "--steps", "4"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_masked().save(tmp_path / "masked")
    tiny_flow().save(tmp_path / "flow")
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def reflect(out, *words, judge="judge", model="masked"):
    given = [model, *SEARCH, "--reward", f"reward.py:{judge}", "n=1", "rounds=1", *words]
    return main(["search", "reflect", *given, "--out", out])


def test_what_a_search_has_set_right_is_learned_from(home, capsys):
    assert reflect("found", "--export-groups", "groups/g.jsonl") == 0
    assert "wrote 2 groups to groups/g.jsonl" in capsys.readouterr().out
    groups = read_corrections(home / "groups/g.jsonl")
    assert [g.reason for g in groups] == ["not as asked: cat"] * 2
    assert groups[0].regions == ((1, 1, 1, 1),) * 2 + ((0, 0, 0, 0),) * 2 and groups[0].bad != groups[0].good
    assert main(["train", "self-correction", *TRAIN, "--data", "groups/g.jsonl", "--out", "run"]) == 0
    rows = read_metrics(home / "run/metrics.jsonl")
    assert len(rows) == 4 and rows[0]["at_fault"] == 0.5
    tuned, before = load_generator("run"), load_generator("masked")
    assert not torch.equal(tuned.network.head.weight, before.network.head.weight)
    assert json.loads((home / "run/result.json").read_text())["steps"] == 4
    assert reflect("corrected", "way=correct", judge="later", model="run") == 0
    assert (home / "corrected/strips/000000.png").is_file()


def test_without_groups_the_world_gives_them_and_a_cut_run_goes_on_bit_equal(home, monkeypatch):
    whole = train_self_correction(None, TRAIN, home / "whole")
    true_train = self_correction.train

    def cut(*arguments, **more):
        for record in true_train(*arguments, **more):
            yield record
            if record.step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(self_correction, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            train_self_correction(None, TRAIN, home / "cut")
    resumed = train_self_correction(resume=home / "cut")
    ours, theirs = (load_generator(str(run.folder)).network.state_dict() for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = read_metrics(home / "whole/metrics.jsonl")
    assert {"correction_loss", "pretraining_loss", "at_fault"} <= set(rows[0])


def test_what_cannot_be_is_one_sentence(home, capsys):
    train = ["train", "self-correction", *TRAIN[1:], "--out", "never"]
    assert "and 'flow' is none; use `train dpo`" in refused(capsys, *train, "model=flow")
    assert reflect("found", "--export-groups", "groups.json") == 2
    assert "expected --export-groups FILE.jsonl" in capsys.readouterr().err
    assert reflect("found", "accept=100", "--export-groups", "groups.jsonl") == 2
    assert "no redrawn picture reached a score of 100" in " ".join(capsys.readouterr().err.split())
    assert not (home / "never").exists() and not (home / "groups.jsonl").exists()
