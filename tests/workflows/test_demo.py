"""The demo with tiny numbers: every stage is kept, what is there is not done again, and bad input ends at once."""

import inspect
import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from small import tiny_flow

from tastemaker.algorithms.watching import WatchConfig
from tastemaker.cli import studio
from tastemaker.cli.main import main
from tastemaker.weights import shipped
from tastemaker.workflows import demo

pytestmark = pytest.mark.skipif(not shipped("tiny-clip").is_file(), reason="the shipped weights are not there")
STAGES = ("base", "best_of_8", "tuned")
WORDS = ["demo", "--model", "tiny-flow:model", "--reward", "alignment", "--steps", "1", "--out", "demo"]
TRUE_SETTINGS = demo.Settings


def small_settings(*arguments, refl, **more):
    tiny = replace(refl, batch_size=2, watch=WatchConfig(pictures=2))
    return TRUE_SETTINGS(*arguments, per_task=1, seeds_per_prompt=2, n=2, refl=tiny, **more)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "Settings", small_settings)
    monkeypatch.setattr(demo, "SPACES", ("tiny-clip",))
    generator = tiny_flow()
    generator.save(tmp_path / "model")
    return tmp_path


def stage_files(home):
    return {name: home / f"demo/{name}.safetensors" for name in STAGES}


def test_the_demo_and_going_on_with_it(home, capsys):
    assert main(WORDS) == 0
    assert "open demo/report.html" in capsys.readouterr().out
    result = json.loads((home / "demo/result.json").read_text())
    for name in ("base", "refl", "best_of_8"):
        figures = result[name]
        assert figures["geneval"]["overall"]["count"] == 12 and {"alignment", "sharpness"} <= set(figures["rewards"])
        assert figures["frechet"]["tiny-clip"] > 0
    steps = 2 * tiny_flow().plan.steps  # guidance asks the network twice
    assert result["base"]["network_evaluations"] == 12 * steps
    assert result["best_of_8"]["network_evaluations"] == 24 * steps and result["best_of_8"]["verifier_calls"] == 24
    assert result["best_of_8"]["rewards"]["alignment"]["value"] > result["base"]["rewards"]["alignment"]["value"]
    difference = result["differences"]["best_of_8"]["rewards"]["alignment"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert (home / "demo/report.html").is_file() and len(result["pictures"]) == 12
    assert all((home / "demo" / f).is_file() for row in result["pictures"] for f in row["files"].values())

    # one stage and the result are lost: that stage alone is made again, and as it was
    files = stage_files(home)
    pictures = load_file(files["best_of_8"])["images"]
    times = {name: path.stat().st_mtime_ns for name, path in files.items()}
    files["best_of_8"].unlink()
    (home / "demo/result.json").unlink()
    assert main(WORDS) == 0
    after = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert [name for name in STAGES if after[name] != times[name]] == ["best_of_8"]
    assert (load_file(files["best_of_8"])["images"] == pictures).all()
    again = json.loads((home / "demo/result.json").read_text())
    assert again["refl"]["rewards"] == result["refl"]["rewards"] and again["differences"] == result["differences"]


def test_the_page_says_how_the_studio_is_opened_where_its_model_comes_along(home, monkeypatch):
    port = inspect.signature(studio.run).parameters["port"].default
    assert demo.STUDIO["address"] == f"http://localhost:{port}"
    own = {"tiny-miro": home / "tiny-miro"}
    monkeypatch.setattr(demo, "shipped", lambda name: own.get(name) or shipped(name))
    for there in (False, True):
        if there:
            own["tiny-miro"].touch()
        assert main(WORDS) == 0
        page = (home / "demo/report.html").read_text()
        link = f'<a href="{demo.STUDIO["address"]}">'
        assert ("<pre>tastemaker studio</pre>" in page) == (link in page) == there


def test_interrupted_in_training_it_goes_on_and_overwrite_begins_again(home, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "tune", interrupted)
        assert main(WORDS) == 130
    files = stage_files(home)
    assert [name for name in STAGES if files[name].is_file()] == ["base", "best_of_8"]
    assert main(WORDS) == 0 and files["tuned"].is_file()
    times = {name: path.stat().st_mtime_ns for name, path in files.items()}
    (home / "demo/notes.txt").write_text("mine")
    trained = (home / "demo/refl/versions.json").stat().st_mtime_ns
    assert main([*WORDS[:-4], "--steps", "2", "--out", "demo", "--overwrite"]) == 0
    assert all(path.stat().st_mtime_ns != times[name] for name, path in files.items())
    assert (home / "demo/notes.txt").read_text() == "mine"
    assert (home / "demo/refl/versions.json").stat().st_mtime_ns != trained
    assert len((home / "demo/refl/metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--model", "tiny-flo"], "unknown model 'tiny-flo'"),
        (["--reward", "sharpnes"], "unknown reward 'sharpnes'"),
        (["--reward", "compressibility"], "'compressibility' has none"),
        (["--prompts", "empty.txt"], "empty.txt holds no prompts"),
        (["--prompts", "zebra.txt"], "unknown prompt word 'zebra'"),
        (["--steps", "0"], "steps"),
    ],
)
def test_bad_input_ends_before_anything_is_written(home, capsys, words, sentence):
    (home / "empty.txt").write_text("")
    (home / "zebra.txt").write_text("a photo of a zebra\n")
    model = [] if "--model" in words else ["--model", "tiny-flow:model"]
    assert main(["demo", *model, *words, "--out", "demo"]) == 2
    assert sentence in capsys.readouterr().err and not (home / "demo").exists()


def test_a_folder_that_is_not_a_run_is_left_alone(home, capsys):
    (home / "demo").mkdir()
    (home / "demo/base.safetensors").write_bytes(b"mine")
    assert main([*WORDS, "--overwrite"]) == 2
    assert "is not a run" in capsys.readouterr().err and (home / "demo/base.safetensors").read_bytes() == b"mine"
