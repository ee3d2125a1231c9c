"""`evaluate frechet` and `evaluate pareto` from end to end on a few pictures and a feature space of six numbers."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tastemaker.cli.main import main
from tastemaker.evaluation.frechet import Moments, frechet_distance
from tastemaker.evaluation.kernel_distance import unbiased
from tastemaker.evaluation.prdc import prdc
from tastemaker.records import Provenance
from tastemaker.report.fronts import Axis, FrontPoint, fronts_png
from tastemaker.workflows import load
from tastemaker.workflows.pictures import look_at, partners

REWARD = """
def red(images, prompts):
    return images[:, 0].mean((1, 2))


def words(images, prompts):
    return images.mean((1, 2, 3)) * 0 + len(prompts[0].text)
"""


class Corners:
    """Means of the colours over the left and the right half."""

    name, dim = "corners", 6

    def __init__(self, weights="w1"):
        self.provenance = Provenance("corners", weights, "pictures as they are, no resizing")

    def features(self, images):
        return torch.cat([half.mean((2, 3)) for half in images.chunk(2, 3)], 1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Real pictures, a base, and a redder set of the same prompts and seeds, as `tastemaker sample` writes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(load.ENCODERS, "corners", lambda path: Corners(path or "w1"))
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "names.txt").write_text("tench\ngoldfish\n")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (12, 8, 8, 3))
    write(tmp_path / "real", 120 + rng.integers(0, 60, (40, 8, 8, 3)))
    write(tmp_path / "before", noise + 20, "pictures.jsonl")
    write(tmp_path / "after", noise + [110, 80, 80], "pictures.jsonl")
    return tmp_path


def write(folder, pictures, listing=""):
    folder.mkdir()
    rows = []
    for k, picture in enumerate(pictures):
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{k}.png")
        rows.append({"file": f"{k}.png", "prompt": str(k % 2), "seed": k})
    if listing:
        Image.new("RGB", (8, 8)).save(folder / "grid.png")  # an overview, no sample
        (folder / listing).write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluate(*words):
    assert main(["evaluate", *words]) == 0
    return json.loads(open(f"{words[words.index('--out') + 1]}/result.json").read())


def features(folder, count):
    return look_at(folder, {"corners": Corners()}, ["corners"]).features["corners"][:count]


def test_everything_of_one_set_of_pictures(home, capsys):
    result = evaluate("frechet", "after", "real", "--space", "corners", "--rewards", "reward.py:red", "--out", "run")
    found, shown = result["pictures_measured"], capsys.readouterr().out
    real, ours = features(home / "real", 40), features(home / "after", 12)
    assert len(ours) == 12  # the overview is not one of them
    assert found["frechet"]["corners"] == pytest.approx(frechet_distance(Moments.of(ours), Moments.of(real)))
    assert found["kernel_distance"] == {"corners": pytest.approx(unbiased(ours, real))}
    five, three = prdc(real, ours, 5), prdc(real, ours, 3)
    assert found["prdc"]["corners coverage"] == five["coverage"]
    assert found["prdc"]["corners recall, k = 3"] == three["recall"]
    over = {name.split()[1]: value for name, value in found["over_floor"].items()}
    assert over["excess"] == pytest.approx(over["distance"] - over["floor"]) and over["floor"] > 0
    assert over["ratio"] == pytest.approx(over["distance"] / over["floor"])
    assert "At 12 pictures" in shown and "two disjoint halves of the reference" in shown
    assert (
        result["spaces"]["corners"]["preprocessing"] == "pictures as they are, no resizing" and "no resizing" in shown
    )
    assert list(found["drift"]) == ["brightness", "saturation", "contrast", "colourfulness", "whiteness"]
    assert result["real"]["drift"]["brightness"]["value"] > found["drift"]["brightness"]["value"]
    assert (
        found["rewards"]["red"]["count"] == 12 and found["rewards"]["red"]["low"] < found["rewards"]["red"]["value"]
    )
    page = (home / "run/report.html").read_text()
    assert "Over the floor of real against real" in page and "two disjoint halves" in page
    assert json.loads((home / "run/versions.json").read_text())["weights"] == {"corners": "w1"}


def test_a_base_gives_paired_differences_and_the_ratio_of_excesses(home, capsys):
    rewards = "reward.py:red,reward.py:words"
    words = ["--space", "corners", "--base", "before", "--rewards", rewards, "--class-names", "names.txt"]
    result = evaluate("frechet", "after", "real", *words, "--out", "run")
    after, before = (
        {name.split()[1]: v for name, v in result[key]["over_floor"].items()} for key in ("pictures_measured", "base")
    )
    assert (
        result["excess_ratio"]["corners"] == pytest.approx(before["excess"] / after["excess"])
        and before["floor"] == after["floor"]
    )
    moved = result["differences"]["pictures_measured"]
    assert moved["rewards"]["red"]["value"] == pytest.approx(90 / 255, abs=1e-6)
    assert (
        moved["rewards"]["red"]["high"] - moved["rewards"]["red"]["low"] < 1e-6
    )  # each pair moved by just that much
    brighter = (0.299 * 90 + 0.701 * 60) / 255
    assert moved["drift"]["brightness"]["value"] == pytest.approx(brighter, abs=1e-6) and len(moved["drift"]) == 5
    assert result["base"]["rewards"]["words"]["value"] == pytest.approx(np.mean([len("a photo of a tench")] * 12))
    assert "12 pairs of the same words and seed" in capsys.readouterr().out


def test_saved_moments_stand_for_the_pictures(home, capsys):
    common = ["--space", "corners"]
    full = evaluate("frechet", "after", "real", *common, "--save-moments", "m.safetensors", "--out", "a")
    again = evaluate("frechet", "after", "m.safetensors", *common, "--out", "b")
    found, other = full["pictures_measured"], again["pictures_measured"]
    assert other["frechet"]["corners"] == pytest.approx(found["frechet"]["corners"], rel=1e-9)
    assert "kernel_distance" not in other and "prdc" not in other and "real" not in again
    shown = capsys.readouterr().out
    assert "no kernel distance" in shown and "drawn from the reference's Gaussian against 40 such rows" in shown
    saving = ["--save-moments", "f.safetensors", "--save-features"]
    evaluate("frechet", "after", "real", *common, *saving, "--out", "c")
    kept = evaluate("frechet", "after", "f.safetensors", *common, "--out", "d")["pictures_measured"]
    assert {g: kept[g] for g in ("frechet", "kernel_distance", "prdc", "over_floor")} == {
        g: pytest.approx(found[g]) for g in ("frechet", "kernel_distance", "prdc", "over_floor")
    }


def test_moments_of_others_stand_for_the_pictures(home, capsys):
    real = features(home / "real", 40).double().numpy()
    np.savez(home / "adm.npz", mu=real.mean(0), sigma=np.cov(real, rowvar=False))
    found = evaluate("frechet", "after", "adm.npz", "--space", "corners", "--out", "run")["pictures_measured"]
    expected = frechet_distance(Moments.of(features(home / "after", 12)), Moments.of(real))
    assert found["frechet"]["corners"] == pytest.approx(expected, rel=1e-9)
    shown = capsys.readouterr().out
    assert "an unknown number of real ones" in shown and "against its own moments" in shown


@pytest.mark.parametrize(
    "words, said",
    [
        (["m.safetensors", "--space", "corners:w2"], "of other weights: made by 'w1', this encoder has 'w2'"),
        (["m.safetensors", "--space", "tiny"], "unknown feature space 'tiny'"),
        (["m.safetensors", "--space", "corners", "--save-moments", "n.safetensors"], "expected reference pictures"),
        (["real", "--space", "corners", "--save-moments", "n.npz"], "ends in .safetensors"),
        (["real", "--space", "corners", "--save-features"], "--save-moments FILE with --save-features"),
        (["real", "--space", "corners,corners"], "feature spaces of different names"),
        (["bad.npz", "--space", "corners"], "expected `mu` and `sigma`"),
        (["bad.npz", "--space", "corners,tiny-clip"], "moments of one feature space"),
        (["real", "--space", "corners", "--class-names", "one.txt"], "only 1 class names were given"),
        (["real", "--space", "corners", "--rewards", "sharp"], "unknown reward 'sharp'"),
        (["real", "--space", "corners", "--base", "gone"], "gone"),
    ],
)
def test_what_does_not_fit_is_refused(home, capsys, words, said):
    evaluate("frechet", "before", "real", "--space", "corners", "--save-moments", "m.safetensors", "--out", "made")
    np.savez(home / "bad.npz", arr_0=np.zeros(3))
    (home / "one.txt").write_text("tench\n")
    capsys.readouterr()
    assert main(["evaluate", "frechet", "after", *words, "--out", "run"]) == 2
    assert said in capsys.readouterr().err and not (home / "run").exists()


def test_partners_are_told_by_words_and_seed_or_by_name(home):
    seen = {name: look_at(home / name, {}) for name in ("before", "after", "real")}
    assert seen["real"].features == {} and len(seen["real"]) == 40  # nothing is kept that was not asked for
    mine, theirs = partners(seen["after"], seen["before"])
    assert mine == theirs == list(range(12))
    assert partners(seen["after"], seen["real"]) == ([], [])
    (home / "before/3.png").write_bytes(b"cut")
    mine, theirs = partners(seen["after"], look_at(home / "before", {}))
    assert mine == [k for k in range(12) if k != 3] and theirs == list(range(11))


# fronts


def run_of(folder, distance, reward, reach=0.0):
    folder.mkdir()
    value = {"value": reward, "low": reward - reach, "high": reward + reach, "count": 9} if reach else reward
    result = {"base": {"frechet": {"s": 99}}, "tuned": {"frechet": {"s": distance}, "rewards": {"red": value}}}
    (folder / "result.json").write_text(json.dumps(result))


def test_fronts_of_runs(home, capsys):
    for name, figures in {"a": (10, 1, 0.1), "b": (20, 3, 0.1), "c": (25, 2, 0.1), "d": (8, 2), "e": (15, 4)}.items():
        run_of(home / name, *figures)
    words = ["alone=a", "alone=b", "alone=c/result.json", "after=d", "after=e"]
    result = evaluate("pareto", *words, "--out", "run")
    # lower distance is better; from the corner (25, 1): 15 x 0 + 5 x 2 against 17 x 1 + 10 x 2
    areas = {name: result[name]["pareto"]["dominated area"] for name in ("alone", "after")}
    assert areas["alone"]["value"] == pytest.approx(10) and areas["after"]["value"] == pytest.approx(37)
    assert areas["alone"]["low"] < 10 < areas["alone"]["high"] and areas["after"]["low"] == areas["after"]["high"]
    difference = result["differences"]["after"]["pareto"]["dominated area"]
    assert difference["value"] == pytest.approx(27) and difference["low"] > 0
    assert [p["name"] for p in result["points"] if p["best"]] == ["a", "b", "d", "e"]
    assert result["alone"]["points"] == 3 and result["alone"]["not dominated"] == 2
    assert Image.open(home / "run/pareto.png").size[0] > 500
    page, shown = (home / "run/report.html").read_text(), capsys.readouterr().out
    assert "data:image/" in page and "after: dominated area 37" in shown
    other = evaluate("pareto", *words, "--lower", "x,y", "--corner", "30,5", "--out", "other")
    assert other["after"]["pareto"]["dominated area"]["value"] == pytest.approx(22 * 3)  # d alone: e is worse on both


def test_fronts_of_a_table_with_seeds(home):
    (home / "t.csv").write_text("front,point,distance,reward\np,one,4,1\np,one,6,3\np,two,2,1\nq,,1,5\n")
    result = evaluate(
        "pareto", "t.csv", "--x", "distance", "--y", "reward", "--lower", "x", "--corner", "10,0", "--out", "run"
    )
    area = result["p"]["pareto"]["dominated area"]
    assert area["value"] == pytest.approx(5 * 2 + 3 * 1)  # one: the mean of two seeds, (5, 2); two: (2, 1)
    # its seeds drawn alike: 6 x 1 inside 8 x 1, or 4 x 3 beside 4 x 1
    assert (area["low"], area["high"]) == (pytest.approx(8), pytest.approx(16))
    assert {p["name"]: (p["x"], p["y"]) for p in result["points"]} == {"one": (5, 2), "two": (2, 1), "line 5": (1, 5)}
    assert result["points"][0]["spread"] == pytest.approx([1.96, 1.96])


@pytest.mark.parametrize(
    "words, said",
    [
        (["gone"], "no results at gone"),
        (["f=gone"], "no results at gone"),
        (["a", "--x", "frechet.t"], "unknown figure 'frechet.t'; nearest known: frechet.s"),
        (["a", "--lower", "z"], "x, y or x,y for --lower"),
        (["a", "--corner", "1"], "expected two numbers such as 120,0.1"),
        (["t.csv"], "name the axes by --x and --y"),
        (["t.csv", "--x", "a", "--y", "c"], "unknown column 'c'"),
        (["t.csv", "--x", "a", "--y", "b"], "t.csv line 2: expected numbers in a and b"),
        (["differences=a"], "another name for a front"),
        (["empty"], "holds no figures"),
    ],
)
def test_results_that_give_no_front_are_refused(home, capsys, words, said):
    run_of(home / "a", 10, 1)
    (home / "t.csv").write_text("a,b\n1,x\n")
    (home / "empty").mkdir()
    (home / "empty/result.json").write_text("{}")
    assert main(["evaluate", "pareto", *words, "--out", "run"]) == 2
    assert said in capsys.readouterr().err and not (home / "run").exists()


def test_the_drawing_is_the_same_bytes_twice():
    fronts = {"one": [FrontPoint("a", 1, 2, (0.1, 0.2)), FrontPoint("b", 2, 1, best=False)]}
    first, second = (fronts_png(fronts, Axis("x", True), Axis("y")) for _ in range(2))
    assert first == second and first.startswith(b"\x89PNG")
