"""`train miro` with tiny numbers: the world and scored shards, baselines, resuming, processes, bad input."""

import io
import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from shard_files import write_tar
from small import tiny_flow, tiny_masked

from tastemaker.algorithms import miro
from tastemaker.cli.main import main
from tastemaker.data.bins import from_description
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.generators.tiny_flow import TinyFlow
from tastemaker.generators.tiny_miro import TinyMiro, load_tiny_miro
from tastemaker.records import Provenance
from tastemaker.report.metrics import read_metrics
from tastemaker.rewards.table import load_rewards
from tastemaker.weights import read_safetensors
from tastemaker.workflows import targets
from tastemaker.workflows.load import load_generator
from tastemaker.workflows.miro import train_miro
from tastemaker.workflows.targets import Wish, asked, pareto_targets

REWARDS = """
from tastemaker.records import Provenance


class Red:
    name, differentiable, range = "red", False, (-1.0, 1.0)
    provenance = Provenance("red", "1")

    def score(self, images, prompts):
        return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


class Wordy(Red):
    name = "wordy"
    provenance = Provenance("words", "1")

    def score(self, images, prompts):
        return [float("nan") if "cat" in p.text else len(p.text) / 50 for p in prompts]


class Redder(Red):
    provenance = Provenance("red", "2")
"""
COMMON = ["model=model", "rewards=r.py:Red,r.py:Wordy", "pictures=40", "steps=4", "batch_size=4", "bins=8"]
COMMON += [
    "compile=false",
    "optimiser.learning_rate=0.001",
    "optimiser.warmup_steps=0",
    "sample_every=4",
    "synthetic=0.5",
    "cache=set",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_flow().save(tmp_path / "model")
    (tmp_path / "r.py").write_text(REWARDS)
    return tmp_path


def weights(folder):
    return {k: v for k, v in load_file(f"{folder}/model.safetensors").items() if k != "seen"}


def same(a, b):
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_holds_its_model_its_bins_and_what_asking_does(home, capsys):
    assert main(["train", "miro", *COMMON, "--out", "run"]) == 0
    assert "equal_mass" in capsys.readouterr().out and "wordy" in (home / "run/bins.txt").read_text()
    assert [r["step"] for r in read_metrics(home / "run/metrics.jsonl")] == [1, 2, 3, 4]
    made = load_generator("run")
    assert isinstance(made, TinyMiro) and made.rewards == ("red", "wordy") and made.guidance == 3.0
    bins = from_description(made.scale.described, "run")
    assert [b.provenance for b in bins] == [Provenance("red", "1"), Provenance("words", "1")]
    assert bins[0].missing == 0 and bins[1].missing > 0 and len(bins[0]) == 8
    assert made.scale.seen.shape == (40, 2) and made.scale.seen[:, 1].isnan().any()
    result = json.loads((home / "run/result.json").read_text())
    assert {"red"} <= set(result["differences"]["tuned"]["rewards"]) and "red" in result["summary"]
    before, after = weights("model"), weights("run")
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved and not any(k.startswith("decoder") for k in moved)
    assert main(["sample", "run", "--prompt", "a photo of a dog", "--seed", "0", "--out", "drawn"]) == 0


def test_a_cut_run_goes_on_bit_equal(home, monkeypatch):
    train_miro(None, COMMON, "whole")
    true_train = miro.train

    def cut(*arguments):
        for record in true_train(*arguments):
            yield record
            if record.step == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(miro, "train", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            train_miro(None, COMMON, "cut")
    train_miro(resume="cut")
    assert same("cut", "whole")
    rows = [[{**r, "seconds": 0} for r in read_metrics(home / run / "metrics.jsonl")] for run in ("cut", "whole")]
    assert rows[0] == rows[1]


def test_baselines_are_settings_of_the_same_command(home):
    plain = train_miro(None, [*COMMON, "condition_on=none"], "plain")
    assert type(load_generator(str(plain.folder))) is TinyFlow and not (plain.folder / "result.json").exists()
    single = load_generator(str(train_miro(None, [*COMMON, "condition_on=red"], "single").folder))
    assert single.rewards == ("red",) and single.scale.seen.shape == (40, 1)
    kinds = ["keep_share=0.25"], ["weight_temperature=0.1"]
    for name, more in zip(("filtered", "weighted"), kinds):
        train_miro(None, [*COMMON, "condition_on=none", *more], name)
        assert not same(name, "plain")


def test_from_nothing_miro_and_its_baseline_begin_alike(home, monkeypatch):
    monkeypatch.setattr(miro, "train", lambda *arguments: iter(()))
    sizes = ["model=none", "size=16", "scale=2", "patch=4", "width=32", "depth=1", "optimiser.ema_decay=0"]
    words = [*COMMON, "cache=set16", *sizes]
    plain = weights(train_miro(None, [*words, "condition_on=none"], "plain").folder)
    told = weights(train_miro(None, words, "told").folder)
    assert all(torch.equal(plain[k], told[k]) for k in plain) and len(told) > len(plain)
    assert any(k.startswith("decoder") for k in plain)


def test_a_run_of_it_is_gone_on_from_with_its_own_bins(home):
    train_miro(None, COMMON, "first")
    train_miro(None, [*COMMON, "model=first", "world_seed=5", "cache=other", "guidance=2"], "second")
    first, second = load_tiny_miro("first"), load_tiny_miro("second")
    assert list(second.scale.described) == list(first.scale.described) and second.guidance == 2
    assert not same("first", "second")
    with pytest.raises(TastemakerError, match=r"reward 'red' is .*'2'.* \(version .*'1'"):
        train_miro(None, [*COMMON, "model=first", "rewards=r.py:Redder,r.py:Wordy", "cache=third"], "third")
    with pytest.raises(TastemakerError, match="give condition_on=all"):
        train_miro(None, [*COMMON, "model=first", "condition_on=red"], "fourth")


def picture(level):
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (level, 40, 40)).save(file, "PNG")
    return file.getvalue()


def shards(folder, levels=(0, 60, 120, 180, 240)):
    """Two tars of five pictures, the last of each without its synthetic caption."""
    folder.mkdir()
    for name in ("a", "b"):
        members = []
        for k, level in enumerate(levels):
            said = {"caption": f"a photo of a cat {k}", "short": f"dog {name} {k}"}
            said = said if k < 4 else {"caption": said["caption"]}
            members += [(f"{name}{k}.png", picture(level)), (f"{name}{k}.json", json.dumps(said).encode())]
        write_tar(folder / f"{name}.tar", members)
    return folder


def scored_shards(home, fields=("caption", "short")):
    folder = shards(home / "shards")
    for field in fields:
        assert main(["score", "r.py:Red,r.py:Wordy", str(folder), "--out", "scores", "--caption", field]) == 0
    return folder


ON_SHARDS = [w for w in COMMON if w[:7] not in ("rewards", "cache=s", "picture")]
ON_SHARDS += ["rewards=red,wordy", "scores=scores", "synthetic_field=short", "batch_size=2"]


def test_scored_shards_are_trained_on_and_each_score_keeps_its_caption(home, monkeypatch, capsys):
    folder, seen = scored_shards(home), {}
    true_train = miro.train

    def spied(generator, data, config, state):
        seen["data"] = data
        return true_train(generator, data, config, state)

    monkeypatch.setattr(miro, "train", spied)
    run = train_miro(None, ON_SHARDS, "run", data=folder)
    data = seen["data"]
    assert "left out 2 pictures" in capsys.readouterr().out
    assert data.captions[0][:4] == tuple(f"a photo of a cat {k}" for k in range(4))
    assert data.captions[1][4:] == tuple(f"dog b {k}" for k in range(4))
    assert data.levels[0, :, 1].isnan().all() and not data.levels[1, :, 1].isnan().any()  # wordy has none for a cat
    reds = data.levels[:, :4, 0]
    assert torch.equal(reds[0], reds[1]) and (reds[0].diff() > 0).all()
    image, _ = data.batches.dataset[3]
    assert image.shape == (3, 16, 16) and image[0, 8, 8] == pytest.approx(180 / 255, abs=1e-6)
    assert load_generator(str(run.folder)).rewards == ("red", "wordy")


def test_shards_that_changed_or_lack_scores_are_named(home):
    folder = scored_shards(home, ["caption"])
    with pytest.raises(UnknownName, match="unknown score 'blue'"):
        train_miro(None, [*ON_SHARDS, "synthetic=0", "rewards=red,blue"], "run", data=folder)
    with pytest.raises(UnknownName, match="unknown score 'red@short'"):
        train_miro(None, ON_SHARDS, "run", data=folder)
    write_tar(folder / "b.tar", [("b0.png", picture(9)), ("b0.json", b'{"caption": "a cat", "short": "x"}')])
    with pytest.raises(TastemakerError, match="b.tar was changed since it was scored: at 'b0' it has another pict"):
        train_miro(None, [*ON_SHARDS, "synthetic=0"], "changed", data=folder)
    (folder / "b.tar").unlink()
    with pytest.raises(TastemakerError, match="b.tar was scored and is not there any more"):
        train_miro(None, [*ON_SHARDS, "synthetic=0"], "gone", data=folder)


def test_bad_input_is_named_before_anything_is_written(home):
    tiny_masked().save(home / "masked")
    cases = {
        "unknown reward 'sharpnes'; nearest known: sharpness": ["rewards=sharpnes"],
        "unknown reward 'blue'": ["condition_on=red,blue"],
        "takes no reward tokens": ["model=masked"],
        "rewards: input should be": ["rewards="],
    }
    for said, more in cases.items():
        with pytest.raises(TastemakerError, match=said):
            train_miro(None, [*COMMON, *more], "run")
    assert not (home / "run").exists()


def test_a_model_whose_edges_are_not_of_their_version_is_refused(home):
    train_miro(None, COMMON, "run")
    tensors, metadata = read_safetensors("run/model.safetensors")
    said = json.loads(metadata["description"])
    said["described"][0]["inner"][0] -= 0.01
    save_file(tensors, "run/model.safetensors", {"description": json.dumps(said)})
    with pytest.raises(TastemakerError, match="the bins of 'red' are not those of version"):
        load_generator("run")


def test_a_reward_without_any_score_is_refused(home):
    (home / "n.py").write_text("def none(images, prompts):\n    return [float('nan')] * len(images)\n")
    with pytest.raises(TastemakerError, match="'none' has no score of any picture"):
        train_miro(None, [*COMMON, "rewards=n.py:none", "cache=n"], "run")


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_make_the_update_of_one(home, sharded):
    words = [*COMMON, "optimiser.muon_scale=0", "optimiser.learning_rate=0.0001", "optimiser.ema_decay=0"]
    train_miro(None, words, "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    env = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1"} | ({"ACCELERATE_USE_FSDP": "true"} if sharded else {})
    done = subprocess.run(
        [*launch, "tastemaker", "train", "miro", *words, "--out", "two"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    one, two, began = weights("one"), weights("two"), weights("model")
    apart = {k: float((one[k] - two[k]).abs().max()) for k in one}
    settled = {k: v for k, v in apart.items() if not k.endswith(("first.bias", "second.bias", "skip.bias"))}
    assert max(settled.values()) < 1e-5, settled
    assert max(float((one[k] - began[k]).abs().max()) for k in began) > 1e-4


# targets


def test_targets_go_from_the_command_line_into_the_pictures(home, capsys):
    train_miro(None, COMMON, "run")
    drawn = {}
    cases = {
        "own": [],
        "red": ["--targets", "red=1"],
        "low": ["--targets", "red=0,wordy=0.5", "--negative", "red=1"],
        "emptied": ["--targets", "red=1", "--empty-negative"],
        "kept": ["--targets", "red=1", "--keep-caption"],
    }
    for name, more in cases.items():
        words = ["sample", "run", "--prompt", "a photo of a dog", "--seed", "0", "--out", name, *more]
        assert main(words) == 0
        drawn[name] = (home / name / "000000.png").read_bytes()
    assert len(set(drawn.values())) == len(drawn)
    assert (
        main(["sample", "run", "--seed", "0", "--targets", "red=1,wordy=1", "--feasible", "--out", "feasible"]) == 0
    )
    for more, said in (
        (["--targets", "blue=1"], "unknown reward 'blue'"),
        (["--targets", "red=1.5"], "got 1.5 for 'red'"),
        (["--targets", "red"], "expected levels such as"),
        (["--targets", "red=1,red=0"], "each once"),
        (["--targets", "red=1", "--keep-caption", "--empty-negative"], "both kept and emptied"),
    ):
        assert main(["sample", "run", *more, "--out", "none"]) == 2
        assert said in capsys.readouterr().err
    assert main(["sample", "model", "--targets", "red=1", "--out", "none"]) == 2
    assert "'model' is told no rewards" in capsys.readouterr().err and not (home / "none").exists()


def test_what_is_not_wished_for_is_asked_in_neither_branch(home):
    train_miro(None, COMMON, "run")
    made = load_tiny_miro("run")
    wish = asked(made, Wish({"wordy": 0.9}))
    assert wish.positive.nan_to_num(-1).tolist() == pytest.approx([-1, 0.9])
    assert wish.negative[0].isnan() and wish.negative[1] == made.negative[1]
    away = asked(made, Wish({}, {"red": 0.25}))
    assert torch.equal(away.positive, made.positive) and away.negative[0] == 0.25
    near = asked(made, Wish({"wordy": 1.0}, feasible=True)).positive
    assert any(torch.equal(near, row) for row in made.scale.seen)


def test_the_front_of_the_training_pictures_is_spread_out():
    seen = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.75, 0.75], [0.5, 0.5], [0.9, 0.2], [float("nan"), 1.0]])
    assert pareto_targets(seen, 1).tolist() == [[0.75, 0.75]]
    assert sorted(pareto_targets(seen, 9).tolist()) == sorted(seen[[0, 1, 2, 4]].tolist())
    three = pareto_targets(seen, 3).tolist()
    assert three[0] == [0.75, 0.75] and [0.0, 1.0] in three and [1.0, 0.0] in three


WORDS = ("dog", "car", "cup", "key", "fish", "tree", "crown", "clock", "apple", "house")


def test_a_search_for_targets_reports_a_front_on_prompts_it_did_not_search_on(home, monkeypatch):
    train_miro(None, COMMON, "run")
    seen = []
    true = targets.drawn_scores

    def spied(generator, judges, prompts, seed):
        seen.append({p.text for p in prompts})
        return true(generator, judges, prompts, seed)

    monkeypatch.setattr(targets, "drawn_scores", spied)
    (home / "prompts.txt").write_text("".join(f"a photo of a {w}\n" for w in WORDS))
    command = ["search", "targets", "run", "--reward", "r.py:Red,sharpness", "--prompts", "prompts.txt"]
    assert main([*command, "--candidates", "2", "--out", "found"]) == 0
    found = json.loads((home / "found/front.json").read_text())
    kept = len(found["front"])
    assert found["candidates"] == 2 + 2 + 1 + 1 and len(seen) == 6 + kept and 1 <= kept <= 6
    assert all(s == seen[0] for s in seen[:6]) and all(s == seen[6] for s in seen[6:]) and not seen[0] & seen[6]
    assert any(r["on_front"] for r in found["front"])
    for r in found["front"]:
        assert set(r["held_out"]) == {"red", "sharpness"}
        assert r["held_out"]["red"]["low"] <= r["held_out"]["red"]["value"] <= r["held_out"]["red"]["high"]
    assert found["notes"] == []
    points = [list(r["searched"].values()) for r in found["front"]]
    assert not any(all(a >= b for a, b in zip(p, q)) and p != q for p in points for q in points)


def test_a_judge_of_another_version_than_the_model_was_told_is_named(home):
    train_miro(None, COMMON, "run")
    model = load_generator("run")
    assert targets.other_versions(model, load_rewards(["r.py:Red", "sharpness"]), "run") == []
    (said,) = targets.other_versions(model, load_rewards(["r.py:Redder", "sharpness"]), "run")
    assert said.startswith("red is") and "run was trained with" in said
