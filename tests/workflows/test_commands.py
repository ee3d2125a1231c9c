"""The commands from end to end with tiny numbers, and what each says to bad input: one sentence, exit code 2."""

import json

import pytest
from PIL import Image
from small import tiny_flow

from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.data.prompts import write_geneval
from tastemaker.records import Prompt
from tastemaker.weights import shipped
from tastemaker.world.dataset import clean_world
from tastemaker.world.grammar import evaluation_prompts

CLIP = pytest.mark.skipif(not shipped("tiny-clip").is_file(), reason="the shipped weights are not there")
FLOW = pytest.mark.skipif(not shipped("tiny-flow").is_file(), reason="the shipped weights are not there")
REWARD = """
def red(images, prompts):
    return images[:, 0].mean((1, 2))


def none(images, prompts):
    return images.mean((1, 2, 3)) * float("nan")


red.differentiable = True
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder to work in with a model, a reward, a prompt file and two folders of pictures."""
    monkeypatch.chdir(tmp_path)
    tiny_flow().save(tmp_path / "model")
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "prompts.txt").write_text("a photo of a cat\na photo of two dogs\n")
    (tmp_path / "zebra.txt").write_text("a photo of a zebra\n")
    (tmp_path / "empty.txt").write_text("\n")
    write_geneval(tmp_path / "geneval.jsonl", evaluation_prompts(1))
    for name, seed in (("one", 0), ("two", 1)):
        for k in range(8):
            save_image(clean_world(seed, 32)[k][0], tmp_path / name / f"{k}.png")
    return tmp_path


def refused(capsys, *words):
    """The one sentence of a command that ends with 2."""
    assert main(list(words)) == 2, capsys.readouterr()
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(shown) == 1
    return shown[0].removeprefix("error: ")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]


def test_sample(home, capsys):
    words = [
        "sample",
        "tiny-flow:model",
        "--prompts",
        "prompts.txt",
        "--seed",
        "3..4",
        "--steps",
        "2",
        "--out",
        "out",
    ]
    assert main(words) == 0 and "out/grid.png" in capsys.readouterr().out
    rows = rows_of(home / "out")
    assert [(r["prompt"][-4:], r["seed"]) for r in rows] == [(" cat", 3), (" cat", 4), ("dogs", 3), ("dogs", 4)]
    assert sorted(p.name for p in (home / "out").glob("0*.png")) == [r["file"] for r in rows]
    assert (
        main(["sample", "model", "--prompt", "a photo of two dogs", "--seed", "4", "--steps", "2", "--out", "alone"])
        == 0
    )
    assert (home / "alone/000000.png").read_bytes() == (home / "out/000003.png").read_bytes()


@FLOW
def test_sample_without_words_shows_the_world(home):
    assert main(["sample", "--seed", "0", "--steps", "1"]) == 0
    rows = rows_of(home / "samples")
    assert len(rows) == 12 and {r["tag"] for r in rows} == {p.spec["tag"] for p in evaluation_prompts(2)}


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["tiny-flo"], "unknown model 'tiny-flo'; nearest known: tiny-flow"),
        (["nowhere/run"], "unknown model 'nowhere/run'"),
        (["tiny-flow:nowhere"], "no weights at nowhere"),
        (["model", "--prompts", "empty.txt"], "empty.txt holds no prompts"),
        (["model", "--prompts", "gone.txt"], "gone.txt"),
        (["model", "--prompt", "a photo of a katze"], "unknown prompt word 'katze'"),
        (["model", "--seed", "7..3"], "must rise"),
        (["model", "--steps", "0"], "steps"),
    ],
)
def test_sample_refuses(home, capsys, words, sentence):
    assert sentence in refused(capsys, "sample", *words, "--out", "out")
    assert not (home / "out").exists()


def test_best_of_n(home, capsys):
    words = [
        "search",
        "best-of-n",
        "model",
        "--reward",
        "reward.py:red",
        "--prompt",
        "a photo of a cat",
        "--seed",
        "0..2",
    ]
    assert main([*words, "--n", "3", "--out", "found"]) == 0
    rows, ledger = rows_of(home / "found"), json.loads((home / "found/ledger.json").read_text())
    assert (
        all(r["scores"][r["chosen"]] == max(r["scores"]) and len(r["scores"]) == 3 for r in rows) and len(rows) == 3
    )
    assert (
        ledger["network_evaluations"] == 3 * 3 * 2 * tiny_flow().plan.steps  # guidance asks twice
        and ledger["verifier_calls"] == 9
        and ledger["left_out"] == 0
    )
    assert main([*words, "--n", "1", "--out", "one_each"]) == 0
    assert main(["sample", "model", "--prompt", "a photo of a cat", "--seed", "0..2", "--out", "plain"]) == 0
    assert (home / "one_each/000001.png").read_bytes() == (home / "plain/000001.png").read_bytes()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["model", "--reward", "sharpnes"], "unknown reward 'sharpnes'; nearest known: sharpness"),
        (["model", "--reward", "reward.py:none"], "'none' gave no score for any candidate: nothing was selected"),
        (["model", "--reward", "gone.py:red"], "gone.py"),
        (["model", "--reward", "reward.py:red", "--prompt", "a cot"], "unknown prompt word 'cot'"),
        (["modell", "--reward", "reward.py:red"], "unknown model 'modell'"),
        (["model", "--reward", "reward.py:red", "--prompts", "empty.txt"], "empty.txt holds no prompts"),
        (["model", "--reward", "reward.py:red", "--n", "0"], "n"),
    ],
)
def test_best_of_n_refuses(home, capsys, words, sentence):
    more = [] if "--prompt" in words or "--prompts" in words else ["--prompt", "a photo of a cat"]
    assert sentence in refused(capsys, "search", "best-of-n", *words, *more, "--seed", "0", "--out", "found")
    assert not (home / "found").exists()


def test_train_clip_and_pretrain(home):
    small = ["width=32", "depth=1", "size=16", "batch_size=2", "steps=2", "compile=false"]
    for name in ("clip", "pretrain"):
        assert main(["train", name, *small, "--out", name]) == 0
        assert {"config.yaml", "metrics.jsonl", "model.safetensors", "report.html"} <= {
            p.name for p in (home / name).iterdir()
        }
    assert main(["sample", "pretrain", "--prompt", "a photo of a cat", "--seed", "0", "--out", "drawn"]) == 0
    assert main(["train", "clip", "--resume", "clip"]) == 0  # done already: nothing is left to do


REFL = ["model=model", "reward=reward.py:red", "steps=2", "batch_size=2", "watch.pictures=2", "prompts=prompts.txt"]


def test_train_refl(home, capsys):
    assert main(["train", "refl", *REFL, "--out", "run"]) == 0
    assert "pictures may drift" in capsys.readouterr().out
    assert len((home / "run/metrics.jsonl").read_text().splitlines()) == 2 and (home / "run/report.html").is_file()
    assert main(["sample", "run", "--prompt", "a photo of a cat", "--seed", "0", "--out", "drawn"]) == 0


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["clip", "wdth=32"], "unknown configuration key 'wdth'; nearest known: width"),
        (["clip", "steps=many"], "steps"),
        (["clip", "gone.yaml"], "gone.yaml"),
        (["clip", "--data", "gone"], "gone"),
        (["clip", "--resume", "one"], "one is not a run"),
        (["pretrain", "size=20"], "a size that is a multiple of"),
        (["refl", *REFL, "model=modell"], "unknown model 'modell'"),
        (["refl", *REFL, "reward=compressibility"], "'compressibility' has none. Use it with `search best-of-n`"),
        (["refl", *REFL, "reward=reward.py:blue"], "blue"),
        (["refl", *REFL, "prompts=zebra.txt"], "unknown prompt word 'zebra'"),
        (["refl", *REFL, "prompts=empty.txt"], "empty.txt holds no prompts"),
        (["refl", *REFL, "optimiser.learning_rate=-1"], "learning_rate > 0"),
        (["refl", *REFL, "first_late=1.5"], "first_late in [0, 1)"),
    ],
)
def test_train_refuses(home, capsys, words, sentence):
    out = [] if "--resume" in words else ["--out", "run"]
    assert sentence in refused(capsys, "train", *words, *out)
    assert not (home / "run").exists()


def test_train_does_not_write_over_a_run(home, capsys):
    (home / "run").mkdir()
    (home / "run/config.yaml").write_text("a: 1\n")
    assert "already holds a run; go on with it by --resume" in refused(capsys, "train", "refl", *REFL, "--out", "run")
    assert "give --out FOLDER, or --resume RUN" in refused(capsys, "train", "refl", *REFL)


def test_evaluate_geneval(home):
    tiny_flow(seed=1).save(home / "other")
    words = ["evaluate", "geneval", "model", "--against", "other", "--prompts", "geneval.jsonl", "--seed", "0..1"]
    assert main([*words, "--out", "run"]) == 0
    result = json.loads((home / "run/result.json").read_text())
    assert (
        result["model"]["geneval"]["overall"]["count"] == 12 and result["other"]["geneval"]["counting"]["count"] == 2
    )
    difference = result["differences"]["model"]["geneval"]["overall"]
    assert difference["low"] <= difference["value"] <= difference["high"] and (home / "run/report.html").is_file()


@CLIP
def test_evaluate_frechet(home, capsys):
    words = ["evaluate", "frechet", "one", "two", "--space", "tiny-clip"]
    (home / "one/cut.png").write_bytes((home / "one/0.png").read_bytes()[:200])
    assert main([*words, "--out", "run"]) == 0
    assert "left out: " in capsys.readouterr().out
    figures = json.loads((home / "run/result.json").read_text())["pictures_measured"]
    assert figures["frechet"]["tiny-clip"] > 0 and {"kernel_distance", "prdc", "over_floor", "drift"} <= set(figures)
    assert main(["evaluate", "frechet", "two", "two", "--space", "tiny-clip", "--out", "same"]) == 0
    same = json.loads((home / "same/result.json").read_text())["pictures_measured"]["frechet"]["tiny-clip"]
    assert same == pytest.approx(0, abs=1e-4)


def test_evaluate_drift(home):
    for k in range(8):
        picture = Image.open(home / f"one/{k}.png").point(lambda v: v // 2)
        (home / "dark").mkdir(exist_ok=True)
        picture.save(home / f"dark/{k}.png")
    assert main(["evaluate", "drift", "dark", "one", "--out", "run"]) == 0
    result = json.loads((home / "run/result.json").read_text())
    moved = result["differences"]["after"]["drift"]["brightness"]
    assert moved["high"] < 0 and result["after"]["drift"]["brightness"] < result["before"]["drift"]["brightness"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["geneval", "modell"], "unknown model 'modell'"),
        (["geneval", "model", "--prompts", "empty.txt"], "empty.txt holds no prompts"),
        (["geneval", "model", "--prompts", "prompts.txt"], "has no spec to check"),
        (["geneval", "model", "--prompts", "zebra.jsonl"], "unknown prompt word 'zebra'"),
        (["frechet", "cut", "two", "--space", "efficientnet-lite0"], "cut has 0 readable pictures"),
        (["frechet", "gone", "two", "--space", "efficientnet-lite0"], "gone"),
        (["frechet", "one", "two", "--space", "resnet"], "unknown feature space 'resnet'"),
        (["drift", "cut", "two"], "cut"),
        (["drift", "one", "gone"], "gone"),
    ],
)
def test_evaluate_refuses(home, capsys, words, sentence):
    (home / "cut").mkdir()
    (home / "cut/a.png").write_bytes((home / "one/0.png").read_bytes()[:200])
    spec = {"tag": "single_object", "include": [{"class": "zebra", "count": 1}]}
    write_geneval(home / "zebra.jsonl", [Prompt("a zebra", spec=spec)])
    assert sentence in refused(capsys, "evaluate", *words, "--out", "run")
    assert not (home / "run").exists()


def test_models(capsys):
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(
        name in shown for name in ("tiny-flow", "alignment", "sharpness", "efficientnet-lite0", "diffusers:PATH")
    )
