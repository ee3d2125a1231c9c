"""`train drl|flow-grpo|masked-grpo|nft|awm` with tiny numbers: what a run holds, going on bit for bit, bad input."""

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml
from small import tiny_flow, tiny_masked

from tastemaker.algorithms import awm, drl, flow_grpo, kept, masked_grpo, nft
from tastemaker.cli.main import main
from tastemaker.report.metrics import read_metrics
from tastemaker.weights import shipped
from tastemaker.workflows import tuning
from tastemaker.workflows.configs import read_config
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.rl import scheme_of, train_awm, train_drl, train_flow_grpo, train_masked_grpo, train_nft

REWARD = """
from pathlib import Path


def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def count(images, prompts):
    return (images > 0.5).float().mean((1, 2, 3))


judged = []


def fickle(images, prompts):
    # its gradient is infinite from the second round on, until it is mended
    judged.append(images.requires_grad)
    good = sum(judged) < 2 or Path("mended").exists()
    return redness(images, prompts) if good else (redness(images, prompts) * 0).sqrt()


redness.differentiable = fickle.differentiable = True
"""
GROUPS = ["groups.per_prompt=2", "groups.updates=2"]
COMMANDS = {
    "drl": (train_drl, drl, ["integration_steps=4", "buffer=4", "epochs=2"]),
    "flow-grpo": (train_flow_grpo, flow_grpo, [*GROUPS, "trained_share=0.5"]),
    "masked-grpo": (train_masked_grpo, masked_grpo, [*GROUPS, "trained_share=0.5", "model=masked"]),
    "nft": (train_nft, nft, [*GROUPS, "times=1", "old_rise=0.2"]),
    "awm": (train_awm, awm, [*GROUPS, "times=1"]),
}
FIGURES = {
    "drl": {"reward", "no_score", "exploded", "state_rms", "residual", "kept_share", "threshold", "kl"},
    "flow-grpo": {"reward", "no_score", "ratio", "clipped", "kl"},
    "masked-grpo": {"reward", "no_score", "ratio", "clipped", "kl"},
    "nft": {"reward", "no_score", "from_old", "from_base"},
    "awm": {"reward", "no_score", "ratio", "clipped", "from_base"},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder to work in with a tiny model and rewards of one's own."""
    monkeypatch.chdir(tmp_path)
    tiny_flow().save(tmp_path / "model")
    tiny_masked().save(tmp_path / "masked")
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def words(name, *more):
    reward = "redness" if name == "drl" else "count"
    common = ["model=model", f"reward=reward.py:{reward}", "steps=6", "batch_size=2", "watch.every=3"]
    return [
        *common,
        "watch.pictures=3",
        "watch.tolerance=100",
        "optimiser.learning_rate=0.001",
        *COMMANDS[name][2],
        *more,
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_holds_its_model_its_figures_and_its_result(home, name, capsys):
    assert main(["train", name, *words(name), "--out", "run"]) == 0
    assert "report.html" in capsys.readouterr().out
    rows = read_metrics(home / "run/metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5, 6]
    assert FIGURES[name] | {"loss", "gradient_norm", "learning_rate"} <= set(rows[0])
    assert {"watch/reward_change", "drift/brightness"} <= set(rows[2])
    result = json.loads((home / "run/result.json").read_text())
    assert result["steps"] == 6 and result["differences"]["tuned"]["rewards"]
    assert main(["sample", "run", "--prompt", "a photo of a cat", "--seed", "0", "--out", "drawn"]) == 0


def state_of(folder):
    return load_generator(str(folder)).network.state_dict()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("last", [1, 3])
def test_a_cut_run_goes_on_bit_equal(home, name, last, monkeypatch):
    """Inside a round, where what was drawn comes from the checkpoint, whoever is the reference then."""
    command, algorithm, _ = COMMANDS[name]
    whole = command(None, words(name), home / "whole")
    true_train = algorithm.train

    def cut(*arguments, **more):
        for record in true_train(*arguments, **more):
            yield record
            if record.step == last:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(algorithm, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            command(None, words(name), home / "cut")
    resumed = command(resume=home / "cut")
    ours, theirs = state_of(resumed.folder), state_of(whole.folder)
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    rows = [[{**r, "seconds": 0} for r in read_metrics(run.folder / "metrics.jsonl")] for run in (resumed, whole)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_adapter_is_trained_against_the_base(home, name):
    pytest.importorskip("peft")
    command = COMMANDS[name][0]
    command(None, words(name, "lora_rank=2"), home / "run")
    tuned, base = state_of(home / "run"), state_of(home / ("masked" if name == "masked-grpo" else "model"))
    assert base.keys() == tuned.keys() and any(not torch.equal(base[n], tuned[n]) for n in base)


@pytest.mark.skipif(not shipped("tiny-flow").is_file(), reason="the shipped weights are not there")
@pytest.mark.parametrize("name", COMMANDS)
def test_without_settings_a_command_finds_all_it_needs(name):
    """Model, reward, prompts and held-out rewards of the defaults; no step is taken."""
    config = COMMANDS[name][1].Config()
    bench = tuning.opened(config)
    assert [r.name for r in tuning.watch_of(bench, config).rewards] == ["alignment", "sharpness", "harmony"]
    assert len(bench.prompts) > 1000 and tuning.pictures(bench.generator, config, None) is None


@pytest.mark.parametrize("integrator", [*drl.INTEGRATORS, drl.NATIVE])
def test_every_integrator_runs(home, integrator):
    run = train_drl(None, words("drl", f"integrator={integrator}", "steps=1", "half=true"), home / "run")
    assert len(read_metrics(run.folder / "metrics.jsonl")) == 1


def test_a_grid_that_begins_after_zero_needs_the_native_integrator():
    generator = tiny_flow()
    generator.plan = replace(generator.plan, times=(0.1, 0.5, 0.9))
    with pytest.raises(ValueError, match="begins at t = 0.1: expected integrator=native"):
        scheme_of(drl.Config(), generator)
    assert scheme_of(drl.Config(integrator="native"), generator).times == (0.1, 0.5, 0.9)


def refused(capsys, *given):
    assert main(list(given)) == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize(
    "name, more, sentence",
    [
        ("drl", ["reward=reward.py:count"], "'count' has none. Use it with `search best-of-n`"),
        ("drl", ["guidance=2"], "expected guidance = 1 in DRL's training"),
        ("drl", ["preset=strong"], "a preset among theory, default, quick, got strong"),
        (
            "drl",
            ["integrator=sde"],
            "a memoryless integrator, local-linear, published, euler-maruyama or native, as other noise",
        ),
        (
            "flow-grpo",
            ["groups.per_prompt=1"],
            "groups.per_prompt of at least 2, since a group of one has no advantage",
        ),
        ("flow-grpo", ["noise_level=0"], "a noise_level above 0, since a step without noise has no density"),
        ("flow-grpo", ["variant=both"], "a variant among exact, published, got both"),
        ("masked-grpo", ["model=model"], "'model' draws no tokens: expected a masked-token generator"),
        ("nft", ["groups.reward_weights=[1,2]"], "expected 1 groups.reward_weights, one per reward, got 2"),
        ("nft", ["beta=0"], "beta and most_advantage above 0"),
        ("awm", ["weighting=cubic"], "a weighting among uniform, noise"),
        ("drl", ["buffer=3"], "a buffer that is a multiple of batch_size = 2, got 3"),
    ],
)
def test_what_cannot_be_is_one_sentence(home, capsys, name, more, sentence):
    assert sentence in refused(capsys, "train", name, *words(name), *more, "--out", "run")
    assert not (home / "run").exists()


def test_a_preset_is_a_row_of_settings_and_what_is_given_beside_it_counts(home):
    plain, theory, paper, quick = (
        read_config(drl.Config, None, [f"preset={n}"] * bool(n)) for n in ("", *drl.PRESETS)
    )
    assert (plain.strength, theory.strength, paper.strength) == (1, 1, 10)
    assert (quick.steps, quick.strength, quick.optimiser.warmup_steps) == (64, 1, 5)
    assert quick.optimiser.max_grad_norm == math.inf and quick.steps % quick.round_steps == 0
    own = read_config(drl.Config, None, ["preset=quick", "steps=60", "optimiser.warmup_steps=10", "strength=2"])
    assert (own.steps, own.strength, own.integration_steps) == (60, 2, 16)
    assert (own.optimiser.warmup_steps, own.optimiser.learning_rate) == (10, 3e-4)
    train_drl(None, words("drl", "preset=default", "steps=2"), home / "run")
    said = yaml.safe_load((home / "run/config.yaml").read_text())
    assert (said["preset"], said["strength"], said["steps"]) == ("default", 10, 2)
    assert read_config(drl.Config, home / "run/config.yaml").steps == 2


def test_a_buffer_that_does_not_fit_is_refused_before_the_run(home, capsys, monkeypatch):
    monkeypatch.setattr(kept, "free_memory", lambda: 10**6)
    said = refused(capsys, "train", "drl", *words("drl"), "buffer=2048", "--out", "run")
    assert "of memory" in said and "are free; give a smaller buffer" in said and not (home / "run").exists()


def test_adjoints_that_explode_end_the_run_and_leave_its_checkpoint_good(home, capsys, monkeypatch):
    monkeypatch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
    said = refused(capsys, "train", "drl", *words("drl", "reward=reward.py:fickle"), "--out", "run")
    assert "the adjoints of 4 of 4 trajectories are not finite" in said and "a lower strength" in said
    assert [r["step"] for r in read_metrics(home / "run/metrics.jsonl")] == [1, 2, 3, 4]
    (home / "mended").touch()
    assert main(["train", "drl", "--resume", "run"]) == 0
    whole = train_drl(None, words("drl"), home / "whole")
    ours, theirs = state_of(home / "run"), state_of(whole.folder)
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_refl_too_refuses_a_reward_without_a_gradient(home, capsys):
    given = ["model=model", "reward=reward.py:count", "steps=1", "--out", "run"]
    assert "'count' has none" in refused(capsys, "train", "refl", *given) and not (home / "run").exists()


@pytest.mark.parametrize("name", ["flow-grpo", "nft", "awm"])
def test_several_rewards_are_compared_one_by_one(home, name):
    more = ["reward=reward.py:count,sharpness", "groups.reward_weights=[2,1]", "steps=1"]
    run = COMMANDS[name][0](None, words(name, *more), home / "run")
    row = read_metrics(run.folder / "metrics.jsonl")[0]
    assert row["reward"] == pytest.approx(2 * row["reward/count"] + row["reward/sharpness"], rel=1e-4)


def test_the_published_variant_runs(home):
    run = train_flow_grpo(None, words("flow-grpo", "variant=published", "steps=2"), home / "run")
    assert len(read_metrics(run.folder / "metrics.jsonl")) == 2
