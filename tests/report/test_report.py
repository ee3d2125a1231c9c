"""The report: one file, nothing from outside, everything escaped, and verdicts that follow the intervals."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tastemaker.cli.main import main
from tastemaker.errors import TastemakerError
from tastemaker.records import Interval
from tastemaker.report.comparison import contenders, sections_of
from tastemaker.report.figures import Bars, Curves, _ticks, smooth, thin
from tastemaker.report.page import Listing, Page, Section, Step, Text, write_page
from tastemaker.report.pictures import Picture, PictureGrid, PictureRow, data_uri
from tastemaker.report.runs import page_of, write_reports
from tastemaker.report.tables import Difference, Table, number

EVIL = '<script>alert("1")</script>&'


def interval(value, half=0.05, count=400):
    return {"value": value, "low": value - half, "high": value + half, "count": count}


def picture(path, size=(16, 16)):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def run(tmp_path):
    """A folder as the demo leaves it."""
    folder = tmp_path / "run"
    (folder / "refl").mkdir(parents=True)
    names = ("base", "refl", "best_of_8")
    result = {
        name: {
            "geneval": {"overall": interval(0.5 + i / 10), "color_attr": interval(0.3)},
            "frechet": {"tiny-clip": 12.0 + i},
            "network_evaluations": 8640 * (i + 1),
            "seconds": 12.5,
        }
        for i, name in enumerate(names)
    }
    result["differences"] = {
        "refl": {
            "geneval": {"overall": interval(0.1), "color_attr": interval(0.0)},
            "frechet": {"tiny-clip": interval(2)},
        },
        "best_of_8": {"geneval": {"overall": interval(-0.2)}},
    }
    for name in names:
        picture(folder / "samples" / f"{name}.png")
    files = {name: f"samples/{name}.png" for name in names}
    result["pictures"] = [{"prompt": EVIL, "seed": 3, "files": files, "correct": {"base": False, "refl": True}}]
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "versions.json").write_text(json.dumps({"tastemaker": "0.1.0", "seed": 0, "weights": {"base": EVIL}}))
    (folder / "config.yaml").write_text(f"name: {EVIL}\n")
    rows = [{"step": i, "seconds": 0.5, EVIL: i / 2, "odd": None} for i in range(1, 30)]
    (folder / "refl" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 30, "lo')
    return folder


class Reader(HTMLParser):
    """Tags that stay open, sources and links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.urls, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.urls += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        if tag not in ("meta", "img", "br", "rect", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_asks_nothing_from_outside(run):
    (path,) = write_reports([run])
    text = path.read_text()
    page = Reader(text)
    assert page.open == [] and "script" not in page.tags
    assert all(u.startswith(("data:image/", "#")) for u in page.urls)
    assert not re.search(r"@import|url\(|https?://", text)
    assert text.count("data:image/png") == 3 and "alert(&quot;1&quot;)" in text
    assert not list(run.glob("*.partial"))


def test_what_to_do_next_is_a_command_and_a_link_that_is_only_followed_by_hand(run):
    result = json.loads((run / "result.json").read_text())
    result["next"] = [{"text": EVIL, "command": f"tool {EVIL}", "address": "http://localhost:8001"}]
    (run / "result.json").write_text(json.dumps(result))
    text = page_of(run).html()
    page = Reader(text)
    outside = [u for u in page.urls if not u.startswith(("data:image/", "#"))]
    assert outside == ["http://localhost:8001"] and "script" not in page.tags and "next" not in contenders(result)
    assert "<a" not in Step("look", "tool").html()


def test_the_page_says_what_is_better_worse_and_undecided(run):
    text = page_of(run).html()
    assert "ReFL is better than Base: difference +0.100, 95 % interval [0.050, 0.150] on 400 pairs." in text
    assert "Best of 8 is worse than Base" in text
    assert text.count('class="badge undecided"') == 1  # color_attr
    assert re.search(r'<th scope="row">tiny-clip</th>.*?badge worse.*?\+2.000', text)  # a distance that has grown
    assert "17,280" in text and "✗" in text and "29 steps in 14.50 seconds" in text


def test_less_is_better_turns_the_verdict():
    grown = Interval(2, 1, 3, 10)
    assert Difference(grown).verdict() == "better" and Difference(grown, less_is_better=True).verdict() == "worse"
    assert Difference(Interval(0, -1, 1, 10), True).verdict() == "undecided"


def test_numbers():
    assert [number(v) for v in (0.1234, 12.345, 123.45, 1234.5, 1234567, True)] == [
        "0.123", "12.35", "123.5", "1,234", "1,234,567", "yes"
    ]  # fmt: skip
    assert number(-0.5, sign=True) == "−0.500" and number(1e-6) == "1.0e−06" and number(float("nan")) == "no value"


def test_the_command_writes_one_page_for_a_run_or_all_on_one(run, tmp_path, capsys):
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"wrote {run / 'report.html'}\n"
    assert main(["report", str(run), str(run), "--out", str(tmp_path / "both.html")]) == 0
    assert (tmp_path / "both.html").read_text().count("run: Result") == 4  # a link and a heading each
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_reports_need_no_torch(run):
    code = (
        "import sys; sys.modules['torch'] = None; from tastemaker.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, "report", str(run)], check=True, capture_output=True)


def test_unreadable_files_are_named_and_absent_pictures_shown_as_such(run):
    (run / "samples/base.png").write_bytes(b"\x89PNG broken")
    (run / "samples/refl.png").unlink()
    assert page_of(run).html().count("no readable picture") == 2
    (run / "result.json").write_text("{")
    with pytest.raises(TastemakerError, match="result.json is not readable JSON"):
        page_of(run)


def test_large_pictures_are_made_smaller(tmp_path):
    assert data_uri(picture(tmp_path / "a.png", (700, 900))).startswith("data:image/jpeg")
    assert data_uri(picture(tmp_path / "b.png")).startswith("data:image/png")


def test_a_training_run_shows_its_samples_and_curves(tmp_path):
    (tmp_path / "versions.json").write_text("{}")
    for step in range(100, 2100, 100):
        picture(tmp_path / "samples" / f"step-{step:06d}.png", (900, 40))
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in range(1, 9))
    )
    assert [s.title for s in page_of(tmp_path).sections] == ["Samples", "Training"]
    text = page_of(tmp_path).html()
    assert text.count("data:image/png") == 6 and "6 of 20 files" in text
    assert text.index("step-002000") < text.index("step-000100")


def test_bars_are_as_long_as_their_values():
    text = Bars({"a": {"x": Interval(1, 0.5, 1.5, 9)}, "b": {"x": Interval(2, 1.5, 2.5, 9)}}).html()
    one, two = (float(w) for w in re.findall(r'class="bar"[^>]* width="([\d.]+)"', text))
    assert two == pytest.approx(2 * one, abs=0.2)


def test_curves_keep_ends_and_means():
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    points = thin([(float(i), float(i % 2)) for i in range(10_000)])
    assert len(points) <= 400 and points[-1][0] == 9999
    assert np.mean([y for _, y in points]) == pytest.approx(0.5, abs=0.01)
    assert Curves([{"step": 1, "loss": 2.0}]).html() == ""


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 700), (1e-9, 3e-9), (0.31, 0.32)])
def test_ticks_are_inside_and_few(low, high):
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 8 and all(low - 1e-12 <= t <= high + 1e-12 for t in ticks)


def test_results_with_little_in_them_still_make_a_page(tmp_path):
    assert sections_of({}, tmp_path) == [] and contenders({"count": 3, "base": {"seconds": 1}}) == {}
    assert [s.title for s in sections_of({"model": {"drift": {"contrast": 0.1}}}, tmp_path)] == ["Result", "Figures"]


def test_sections_of_one_s_own(tmp_path):
    row = PictureRow("a cat", [Picture(picture(tmp_path / "a.png"), "mine", True)], 7)
    blocks = [Text("two\nlines"), Table(["", "n"], [["rows", 3]], "All."), PictureGrid([row]), Listing("Log", EVIL)]
    text = write_page(
        Page("Mine", "", [Section("First things!", blocks)]), tmp_path / "out" / "page.html"
    ).read_text()
    assert Reader(text).open == [] and 'id="first-things"' in text and "seed 7" in text


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_chromium_shows_the_page_and_finds_nothing_to_object_to(run, tmp_path):
    (path,) = write_reports([run])
    shot = tmp_path / "shot.png"
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=400,1200"]
    done = subprocess.run(
        ["chromium", *words, f"--screenshot={shot}", path.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr, done.stderr  # a broken policy or file would be told there
    assert len(np.unique(np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3), axis=0)) > 50
