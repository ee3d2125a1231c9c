"""`evaluate geneval` from end to end: the world, the official layout, detectors from folders, judging again."""

import json

import pytest
import tiny_detectors
import torch
from public import write_clip_folder
from small import tiny_flow

from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.data.prompts import write_geneval
from tastemaker.errors import TastemakerError
from tastemaker.evaluation.detections import read_detections
from tastemaker.object_rules import Rules, judge
from tastemaker.records import Prompt
from tastemaker.weights import shipped
from tastemaker.workflows.geneval import WorldFinder
from tastemaker.workflows.self_test import self_test
from tastemaker.world.grammar import evaluation_prompts
from tastemaker.world.scenes import compose, draw

WORLD = pytest.mark.skipif(not shipped("detector-b").is_file(), reason="the shipped weights are not there")
CATS = [
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
    {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a photo of a red cat"},
    {
        "tag": "counting",
        "include": [{"class": "couch", "count": 2}],
        "exclude": [{"class": "couch", "count": 3}],
        "prompt": "a photo of two couches",
    },
]
REWARD = "def bright(images, prompts):\n    return images.mean((1, 2, 3))\n"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused(capsys, *words):
    assert main(["evaluate", "geneval", *words]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Three prompts with two pictures each in the official layout, one of which is cut short."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for i, row in enumerate(CATS):
        folder = tmp_path / "pictures" / f"{i:05d}"
        for k in range(2):
            save_image(torch.rand(3, 40 + 8 * k, 48, generator=generator), folder / "samples" / f"{k:04d}.png")
        (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    cut = tmp_path / "pictures/00001/samples/0001.png"
    cut.write_bytes(cut.read_bytes()[:100])
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


@pytest.fixture
def folders(home):
    """A detector that sees cats everywhere, one that sees nothing, and CLIP."""
    transformers = pytest.importorskip("transformers")
    tiny_detectors.detr(transformers, home / "detr")
    tiny_detectors.detr(transformers, home / "dull", lively=False)
    write_clip_folder(transformers, home / "clip")
    return home


def test_pictures_in_the_official_layout_are_judged_recorded_and_judged_again(folders, capsys):
    words = ["pictures", "--detector", "detector:detr", "--colours", "clip:clip", "--select", "reward.py:bright"]
    assert main(["evaluate", "geneval", *words, "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "counted as wrong: 00001/samples/0001.png" in said
    result = json.loads((folders / "run/result.json").read_text())
    measured, rows = result["pictures/"], lines(folders / "run/results.jsonl")
    assert measured["geneval"]["single_object"]["value"] == 1 and measured["geneval"]["counting"]["value"] == 0
    assert measured["failed"] == 1 and measured["failures"][0]["file"] == "00001/samples/0001.png"
    assert list(measured["any_of_n"]) == ["N = 1", "N = 2"] and "best_of_n_by_bright" in measured
    assert [row["filename"] for row in rows[:2]] == ["00000/samples/0000.png", "00000/samples/0001.png"]
    assert set(rows[0]) == {"filename", "tag", "prompt", "correct", "reason", "metadata", "details"}
    assert json.loads(rows[0]["metadata"]) == CATS[0] and list(json.loads(rows[0]["details"])) == ["cat"]
    assert not rows[3]["correct"] and rows[3]["reason"].startswith("not judged: cannot read")
    assert rows[4]["reason"] == "expected couch>=2, found 0" and (folders / "run/report.html").is_file()

    about, found = read_detections(folders / "run/detections.jsonl")
    assert about.pictures == 6 == len(found) and about.colours == "clip:clip" and found[0].scores["bright"] > 0
    rescored = ["--detections", "run/detections.jsonl", "--out"]
    assert main(["evaluate", "geneval", *rescored, "again"]) == 0
    assert json.loads((folders / "again/result.json").read_text())["pictures/"] == measured
    best = max(box.score for box in found[0].boxes["cat"])
    assert main(["evaluate", "geneval", *rescored, "strict", "--threshold", str(min(best + 0.01, 1.0))]) == 0
    verdicts = [row["correct"] for row in lines(folders / "strict/results.jsonl")]
    strict = Rules(threshold=min(best + 0.01, 1.0))
    assert verdicts == [bool(not f.error and judge(f.boxes, f.prompt.spec, strict).correct) for f in found]
    assert not verdicts[0]


def test_a_detector_that_finds_nothing_is_caught_before_anything_is_measured(folders, capsys):
    words = ["pictures", "--detector", "detector:dull", "--colours", "clip:clip", "--out", "run"]
    said = refused(capsys, *words)
    assert "detector:dull finds nothing above 0.3 in any of 3 drawings (apple, cat, dog)" in said
    assert "its scores would all be 0" in said and not (folders / "run").exists()
    said = refused(capsys, *words, "--reference", "pictures/00000/samples")
    assert "in any of 2 pictures of pictures/00000/samples" in said


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["pictures", "--detector", "detector:detr"], "give --colours clip:FOLDER"),
        (["pictures", "--detector", "yolo:detr"], "expected --detector mask2former:FOLDER or detector:FOLDER"),
        (["pictures", "--detector", "detector:detr", "--colours", "clip"], "expected --colours clip:FOLDER"),
        (["pictures", "--colours", "clip:clip"], "--colours belong to a --detector"),
        (["pictures"], "detector-b cannot find couch"),
        (["pictures", "--prompts", "p.jsonl"], "leave out --prompts"),
        (["pictures", "--against", "pictures"], "cannot be compared with itself"),
        (["--detections", "absent.jsonl"], "cannot read absent.jsonl"),
        (["pictures", "--max-overlap", "0"], "max_overlap in (0, 1]"),
    ],
)
def test_what_cannot_be_measured_is_refused(folders, capsys, words, sentence):
    assert sentence in refused(capsys, *words, "--out", "run") and not (folders / "run").exists()


def test_detections_that_do_not_answer_the_question_are_refused(folders, capsys):
    words = ["pictures", "--detector", "detector:detr", "--colours", "clip:clip", "--out", "run"]
    assert main(["evaluate", "geneval", *words]) == 0
    kept = (folders / "run/detections.jsonl").read_text().splitlines(keepends=True)
    below = refused(capsys, "--detections", "run/detections.jsonl", "--threshold", "0.01", "--out", "low")
    assert "boxes were kept from score 0.05 on" in below
    (folders / "short.jsonl").write_text("".join(kept[:-1]))
    with pytest.raises(TastemakerError, match="tells of 5 pictures, its first line of 6"):
        read_detections(folders / "short.jsonl")
    (folders / "headless.jsonl").write_text("".join(kept[1:]))
    with pytest.raises(TastemakerError, match="headless.jsonl row 1: expected the line `about`"):
        read_detections(folders / "headless.jsonl")
    (folders / "odd.jsonl").write_text(kept[0] + '{"file": "a.png"}\n')
    with pytest.raises(TastemakerError, match="odd.jsonl row 2 is no detection"):
        read_detections(folders / "odd.jsonl")


@WORLD
def test_a_model_draws_into_the_official_layout_and_the_folder_gives_the_same(home):
    tiny_flow().save(home / "model")
    tiny_flow(seed=1).save(home / "other")
    write_geneval(home / "geneval.jsonl", evaluation_prompts(1))
    words = ["evaluate", "geneval", "model", "--against", "other", "--prompts", "geneval.jsonl", "--seed", "0..1"]
    assert main([*words, "--out", "run"]) == 0
    result = json.loads((home / "run/result.json").read_text())
    assert (
        result["model"]["geneval"]["overall"]["count"] == 12
        and "overall" in result["differences"]["model"]["geneval"]
    )
    assert len(list((home / "run/samples").glob("*/samples/*.png"))) == 12
    assert len(list((home / "run/against/samples").glob("*/samples/*.png"))) == 12
    assert len(result["pictures"]) == 12 and set(result["pictures"][0]["files"]) == {"model", "other"}
    assert main(["evaluate", "geneval", "run/samples", "--out", "stored"]) == 0
    for name in ("results.jsonl", "detections.jsonl"):
        own, stored = lines(home / "run" / name), lines(home / "stored" / name)
        assert own[1:] == stored[1:]


@WORLD
def test_right_pictures_score_high_by_the_worlds_own_detector(home):
    for i, prompt in enumerate(evaluation_prompts(2)):
        folder = home / "true" / f"{i:05d}"
        save_image(torch.from_numpy(draw(compose(prompt.spec, i))).permute(2, 0, 1), folder / "samples/0000.png")
        (folder / "metadata.jsonl").write_text(json.dumps({**prompt.spec, "prompt": prompt.text}) + "\n")
    assert main(["evaluate", "geneval", "true", "--out", "run"]) == 0
    assert json.loads((home / "run/result.json").read_text())["true"]["geneval"]["overall"]["value"] > 0.8


@WORLD
def test_the_worlds_detector_passes_its_self_test():
    assert "drawings named right" in self_test(WorldFinder(), 0.3)


class Blind:
    """Finds nothing, or cannot answer."""

    name, colours, floor, weights = "blind", "", 0.05, {}

    def __init__(self, classes=("cat",), answer=None):
        self.classes, self.answer = frozenset(classes), answer

    def find(self, images, prompts):
        assert prompts == [Prompt("")]
        return [self.answer or {}]


def test_the_self_test_says_why():
    with pytest.raises(TastemakerError, match=r"blind finds nothing above 0.3 in any of 1 drawings \(cat\)"):
        self_test(Blind(), 0.3)
    with pytest.raises(TastemakerError, match="knows none of the embedded drawings.*--reference FOLDER"):
        self_test(Blind(["zebra"]), 0.3)
    with pytest.raises(TastemakerError, match="failed its self-test: no answer"):
        self_test(Blind(answer="no answer"), 0.3)
