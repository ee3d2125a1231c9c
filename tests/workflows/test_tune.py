"""`train draft|sft|reward-weighted|raft` with tiny numbers: what a run holds, going on bit for bit, bad input."""

import json
import re
from pathlib import Path

import pytest
import torch
from small import tiny_flow

from tastemaker.algorithms import draft, raft, reward_weighted, sft
from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler
from tastemaker.generators.tiny_flow import load_tiny_flow
from tastemaker.protocols import Plan
from tastemaker.report.metrics import read_metrics
from tastemaker.sampling import sample
from tastemaker.weights import shipped
from tastemaker.workflows import tuning
from tastemaker.workflows.tune import train_draft, train_raft, train_reward_weighted, train_sft
from tastemaker.world.dataset import clean_world
from tastemaker.world.grammar import evaluation_prompts

REWARD = """
def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def count(images, prompts):
    return (images > 0.5).float().mean((1, 2, 3))


def paleness(images, prompts):
    return 1 - redness(images, prompts)


redness.differentiable = True
"""
COMMANDS = {
    "draft": (train_draft, draft, ["last_steps=2", "steps=4"]),
    "sft": (train_sft, sft, ["pictures=12", "steps=4", "pretraining_weight=1"]),
    "reward-weighted": (train_reward_weighted, reward_weighted, ["drawn_prompts=3", "per_prompt=2", "steps=4"]),
    "raft": (train_raft, raft, ["drawn_prompts=3", "per_prompt=2", "rounds=2", "steps=4", "pretraining_weight=1"]),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder to work in with a tiny model and rewards of one's own."""
    monkeypatch.chdir(tmp_path)
    tiny_flow().save(tmp_path / "model")
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def words(name, *more):
    reward = "redness" if name == "draft" else "count"
    common = ["model=model", f"reward=reward.py:{reward}", "batch_size=2", "watch.every=2", "watch.pictures=3"]
    return [*common, "watch.tolerance=100", "optimiser.learning_rate=0.001", *COMMANDS[name][2], *more]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_holds_its_model_its_looks_and_its_result(home, name, capsys):
    assert main(["train", name, *words(name), "--out", "run"]) == 0
    assert "report.html" in capsys.readouterr().out
    rows = read_metrics(home / "run/metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    assert {"watch/reward_change", "watch/held_out_change", "drift/brightness", "held_out/sharpness"} <= set(rows[1])
    assert "watch/reward_change" not in rows[0] and rows[3]["watch/reward_change"] is not None
    result = json.loads((home / "run/result.json").read_text())
    reward = "redness" if name == "draft" else "count"
    difference = result["differences"]["tuned"]["rewards"][reward]
    assert difference["low"] <= difference["value"] <= difference["high"] and difference["count"] == 3
    gap = result["tuned"]["rewards"][reward]["value"] - result["base"]["rewards"][reward]["value"]
    assert difference["value"] == pytest.approx(gap, abs=1e-6)
    assert result["steps"] == 4 and result["stopped_early"] is False and "saturation" in result["tuned"]["drift"]
    assert sorted(p.name for p in (home / "run/samples").iterdir()) == ["step-000000.png", "step-000004.png"]
    page = (home / "run/report.html").read_text()
    assert "Tuned" in page and reward in page
    assert main(["sample", "run", "--prompt", "a photo of a cat", "--seed", "0", "--out", "drawn"]) == 0


def state_of(folder):
    return load_tiny_flow(folder).network.state_dict()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_cut_run_goes_on_bit_equal(home, name, monkeypatch):
    command, algorithm, _ = COMMANDS[name]
    whole = command(None, words(name), home / "whole")
    true_train = algorithm.train

    def cut(*arguments, **more):
        for record in true_train(*arguments, **more):
            yield record
            if record.step == 3:  # for RAFT inside its second round
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(algorithm, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            command(None, words(name), home / "cut")
    resumed = command(resume=home / "cut")
    assert resumed.config == whole.config
    ours, theirs = state_of(resumed.folder), state_of(whole.folder)
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    rows = [[{**r, "seconds": 0} for r in read_metrics(run.folder / "metrics.jsonl")] for run in (resumed, whole)]
    assert rows[0] == rows[1]
    results = [json.loads((run.folder / "result.json").read_text()) for run in (resumed, whole)]
    assert results[0] == results[1]


def test_an_adapter_is_trained_and_merged_into_what_is_saved(home):
    pytest.importorskip("peft")
    train_draft(None, words("draft", "lora_rank=2", "gradient_checkpointing=true"), home / "run")
    tuned, base = state_of(home / "run"), state_of(home / "model")
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert base.keys() == tuned.keys() and changed and all(name.startswith("blocks.") for name in changed)
    generator = load_tiny_flow(home / "run")
    generator.plan = Plan(euler, uniform_times(2))
    assert sample(generator, ["a photo of a cat"], [0]).isfinite().all()


def test_without_prompts_none_is_trained_on_that_an_evaluation_asks():
    trained = tuning.own_prompts(tiny_flow(), 0)
    asked = {prompt.text for prompt in evaluation_prompts(25)}
    shared = {prompt.spec["tag"] for prompt in trained if prompt.text in asked}
    assert shared == {"single_object"} and len(trained) > 1000


def test_checkpointing_changes_no_number(home):
    for name, how in (("plain", "false"), ("saving", "true")):
        train_draft(None, words("draft", f"gradient_checkpointing={how}"), home / name)
    plain, saving = state_of(home / "plain"), state_of(home / "saving")
    for name in plain:
        torch.testing.assert_close(plain[name], saving[name], rtol=1e-4, atol=1e-6)


def test_a_run_that_exploits_its_reward_ends_early_with_the_best_weights(home, capsys):
    more = ["watch.held_out=reward.py:paleness", "watch.tolerance=0.01", "watch.every=1", "watch.patience=2"]
    strong = ["steps=40", "reward_weight=30", "pretraining_weight=0", "optimiser.learning_rate=0.003"]
    run = train_draft(None, words("draft", *more, *strong), home / "run")
    rows = read_metrics(run.folder / "metrics.jsonl")
    assert len(rows) < 40 and [r["watch/exploited"] for r in rows[-2:]] == [1, 1]
    result = json.loads((run.folder / "result.json").read_text())
    assert result["stopped_early"] and result["went_back"] and result["steps"] == len(rows)
    assert "stopped after step" in capsys.readouterr().out and "weights of its best look" in result["summary"]
    sound = [r["watch/reward_change"] for r in rows if not r["watch/exploited"]]
    before, after = state_of(home / "model"), state_of(run.folder)
    if not sound:  # it was exploited from the first look on: the untuned weights are the best
        assert all(torch.equal(before[k], after[k]) for k in before)
    assert train_draft(resume=run.folder).folder == run.folder  # over is over
    assert len(read_metrics(run.folder / "metrics.jsonl")) == len(rows)


def test_filtering_keeps_the_best_of_ones_own_pictures(home, capsys):
    world = clean_world(0, 16)
    for k in range(6):
        image, prompt = world[k]
        save_image(image, home / f"own/{k}.png")
        (home / f"own/{k}.txt").write_text("a photo of a cat" if k < 4 else prompt.text)
    (home / "own/broken.png").write_bytes(b"not a picture")
    (home / "own/broken.txt").write_text("a photo of a cat")
    run = train_sft(None, words("sft", "share=0.5"), home / "run", data=home / "own")
    said = capsys.readouterr().out
    assert "3 of 6 pictures are kept" in said and "left out: " in said and "broken.png" in said
    assert len(read_metrics(run.folder / "metrics.jsonl")) == 4


@pytest.mark.skipif(not shipped("tiny-flow").is_file(), reason="the shipped weights are not there")
@pytest.mark.parametrize("name", COMMANDS)
def test_without_settings_a_command_finds_all_it_needs(name):
    """Model, reward, prompts, data and held-out rewards of the defaults; no step is taken."""
    config = COMMANDS[name][1].Config()
    bench = tuning.opened(config)
    watch = tuning.watch_of(bench, config)
    assert [r.name for r in watch.rewards] == ["alignment", "sharpness", "harmony"] and len(bench.prompts) > 1000
    assert tuning.pictures(bench.generator, draft.Config(), None) is not None
    assert tuning.picture_side(bench.generator) == 64


@pytest.mark.skipif(not shipped("tiny-flow").is_file(), reason="the shipped weights are not there")
def test_the_python_of_the_page_runs(capsys):
    page = (Path(__file__).resolve().parents[2] / "docs/tuning.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)
    exec(compile(block, "tuning.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]


def refused(capsys, *given):
    assert main(list(given)) == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize(
    "name, more, sentence",
    [
        ("draft", ["reward=reward.py:count"], "'count' has none. Use it with `search best-of-n`"),
        ("draft", ["last_steps=0"], "last_steps of at least 1"),
        ("raft", ["rounds=9", "steps=2"], "rounds of at least 1 and at most steps"),
        ("sft", ["share=2"], "a share in (0, 1]"),
        ("reward-weighted", ["beta=0"], "a beta above 0"),
        ("raft", ["watch.patience=-1"], "watch.patience"),
        ("sft", ["model=modell"], "unknown model 'modell'"),
        ("reward-weighted", ["watch.held_out=sharpnes"], "unknown reward 'sharpnes'"),
    ],
)
def test_what_cannot_be_is_one_sentence(home, capsys, name, more, sentence):
    assert sentence in refused(capsys, "train", name, *words(name), *more, "--out", "run")
    assert not (home / "run").exists()
