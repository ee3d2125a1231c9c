"""`evaluate questions` against an endpoint on this machine that judges by the picture's brightness."""

import json
import math

import pytest
import torch
from judge_server import brightness, listed, reply, serving

from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.rewards.question_judge import read, spellings

QUESTIONS = [
    {"prompt": "a lamp", "questions": [{"question": "Is there a lamp?", "skill": "object"},
                                       {"question": "How many?", "answer": "two", "skill": "count"}]},
    {"prompt": "a cat", "questions": ["Is there a cat?"]},
    {"prompt": "a dog", "questions": ["Is there a dog?"]},
]  # fmt: skip


@pytest.fixture
def server():
    with serving() as made:
        yield made


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Four pictures: two lamps of other brightness, a cat, and one whose prompt has no questions."""
    monkeypatch.chdir(tmp_path)
    rows = [("a lamp", 0.8), ("a lamp", 0.4), ("a cat", 0.6), ("a house", 0.5)]
    table = "file,prompt\n"
    for k, (prompt, level) in enumerate(rows):
        save_image(torch.full((3, 8, 8 + k), level), tmp_path / f"pictures/{k}.png")
        table += f"{k}.png,{prompt}\n"
    (tmp_path / "pictures/list.csv").write_text(table)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return tmp_path


def judge(asked, times):
    """Yes as probable as the picture is bright; of "How many?", `2` 0.3 and ` Two` 0.2."""
    text, level = asked["messages"][0]["content"][1]["text"], brightness(asked)
    assert text.endswith(" Answer in one word.")
    tokens = {"2": 0.3, "_Two": 0.2, "3": 0.4} if "many" in text else {"Yes": level, "No": 1 - level}
    return 200, reply(listed(**tokens))


def answers(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_scores_by_both_means_skill_and_length(home, server, capsys):
    server.script = judge
    words = ["evaluate", "questions", "pictures/list.csv", "--questions", "q.jsonl", "--judge", server.url]
    assert main([*words, "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert (
        "left out: 1 of 4 pictures" in said and "no picture of 1 of 3 prompts with questions, such as 'a dog'" in said
    )
    result = json.loads((home / "run/result.json").read_text())["pictures_asked"]
    lamps = [(0.8, 0.5), (0.4, 0.5)]
    am, gm = [sum(p) / 2 for p in lamps], [math.sqrt(a * b) for a, b in lamps]
    assert result["soft_tifa"]["atom-level"]["value"] == pytest.approx((sum(am) + 0.6) / 3, abs=2e-3)
    assert result["soft_tifa"]["prompt-level"]["value"] == pytest.approx((sum(gm) + 0.6) / 3, abs=2e-3)
    # likeliest: yes of 0.8 and 0.6; 3 is likelier than 2
    assert result["soft_tifa"]["hard"]["value"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert result["by_skill"]["object"]["value"] == pytest.approx(0.6, abs=2e-3)
    assert result["by_skill"]["count"]["value"] == pytest.approx(0.5) and result["failed"] == 0
    assert set(result["by_length"]) == {"1 questions", "2 questions"} and (home / "run/report.html").is_file()
    rows = answers(home / "run")
    assert [(r["file"], r["answer"]) for r in rows] == [
        ("0.png", "yes"), ("0.png", "two"), ("1.png", "yes"), ("1.png", "two"), ("2.png", "yes")
    ]  # fmt: skip
    assert rows[0]["probability"] == pytest.approx(0.8, abs=2e-3) and rows[1]["skill"] == "count"


def test_an_unanswered_question_and_a_broken_picture_have_no_score_and_are_named(home, server, capsys):
    server.script = lambda asked, times: (400, {}) if brightness(asked) < 0.5 else judge(asked, times)
    (home / "pictures/2.png").write_bytes(b"no picture")
    words = ["evaluate", "questions", "pictures/list.csv", "--questions", "q.jsonl", "--judge", server.url]
    assert main([*words, "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "no score: 1.png: HTTP 400" in said and "no score: 2.png: cannot read" in said
    result = json.loads((home / "run/result.json").read_text())["pictures_asked"]
    assert result["failed"] == 2 and result["soft_tifa"]["prompt-level"] == pytest.approx(math.sqrt(0.4), abs=2e-3)
    assert ["error" in row for row in answers(home / "run")] == [False, False, True, True, True]


def test_what_cannot_be_asked_is_refused(home, server, capsys):
    words = ["evaluate", "questions", "pictures/list.csv", "--judge", server.url, "--out", "run", "--questions"]
    (home / "other.jsonl").write_text(json.dumps({"prompt": "a Lamp", "questions": ["Is it?"]}) + "\n")
    assert main([*words, "other.jsonl"]) == 2
    assert "none of the 4 pictures of pictures/list.csv has a prompt with questions" in capsys.readouterr().err
    assert not (home / "run").exists()
    server.script = lambda asked, times: (400, {"error": "refused"})
    assert main([*words, "q.jsonl"]) == 2
    assert "answered every question of none of the 3 pictures" in capsys.readouterr().err


def test_an_answer_in_all_its_spellings():
    assert (
        spellings("Two") == {"two", "2"} == spellings("2")
        and spellings("red ") == {"red"}
        and spellings("12") == {"12"}
    )
    found = read(listed(two=0.25, _2=0.125, Two=0.125, three=0.4), "two")
    assert found.probability == pytest.approx(0.5) and not found.likeliest  # three is the likeliest token
    assert read(listed(red=0.6, blue=0.3), "red").likeliest
    assert read(listed(blue=0.6, green=0.3), "red").probability == pytest.approx(0.1)  # at most what is left
    assert math.isnan(read("HTTP 500", "red").probability) and read("HTTP 500", "red").error == "HTTP 500"
