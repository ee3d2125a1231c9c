"""Prompt files: every format, every row that is wrong named, and splits that keep a text on one side."""

import json

import pytest

from tastemaker.data.prompts import read_prompts, split_prompts, write_geneval
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt

SPEC = {
    "tag": "position",
    "include": [{"class": "cup", "count": 1}, {"class": "dog", "count": 2, "position": ["left of", 0]}],
    "exclude": [{"class": "dog", "count": 3}],
}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_pass_over_empty_ones_and_a_byte_order_mark(tmp_path):
    file = write(tmp_path / "a.txt", "\ufeffa red apple\n\n  two dögs \n")
    assert [p.text for p in read_prompts(file)] == ["a red apple", "two dögs"]


def test_partiprompts_column_is_found_and_quotes_are_read(tmp_path):
    file = write(tmp_path / "p.tsv", 'Prompt\tCategory\nbond\tAbstract\n"a ""big"" dog"\tAnimals\n')
    assert [p.text for p in read_prompts(file)] == ["bond", 'a "big" dog']


def test_json_list_of_strings_and_objects(tmp_path):
    file = write(tmp_path / "p.json", json.dumps(["a cat", {"prompt": "a dog", "label": 3, "id": "x"}]))
    assert read_prompts(file) == [Prompt("a cat"), Prompt("a dog", label=3)]


def test_geneval_round_trip(tmp_path):
    prompts = [Prompt("dogs left of a cup", spec=SPEC), Prompt("no check", label=2)]
    write_geneval(tmp_path / "g.jsonl", prompts)
    assert read_prompts(tmp_path / "g.jsonl") == prompts


@pytest.mark.parametrize(
    "change, words",
    [
        ({"prompt": ""}, ["row 2", "`prompt`"]),
        ({"tag": 3}, ["row 2", "`tag`"]),
        ({"include": []}, ["row 2", "`include`"]),
        ({"include": [{"class": "cup"}]}, ["row 2", "include[0]", "`count`", "None"]),
        ({"include": [{"class": "cup", "count": True}]}, ["include[0]", "`count`", "True"]),
        ({"include": [{"count": 1}]}, ["include[0]", "`class`"]),
        ({"include": [{"class": "cup", "count": 1, "color": 5}]}, ["`color`", "5"]),
        ({"include": [{"class": "cup", "count": 1, "position": ["near", 0]}]}, ["position", "left of", "near"]),
        ({"include": [{"class": "cup", "count": 1, "position": ["above", 0]}]}, ["position", "index"]),
        ({"exclude": [{"class": "cup"}]}, ["exclude[0]", "`count`"]),
        ({"label": -1}, ["`label`", "-1"]),
    ],
)
def test_a_wrong_row_is_named_with_its_column(tmp_path, change, words):
    good = {"prompt": "a", **SPEC}
    file = write(tmp_path / "g.jsonl", json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
    with pytest.raises(TastemakerError) as error:
        read_prompts(file)
    assert all(word in str(error.value) for word in ["g.jsonl", *words]), str(error.value)


@pytest.mark.parametrize("name, text", [("a.txt", "\n \n"), ("a.jsonl", ""), ("a.json", "[]"), ("a.tsv", "Prompt\n")])
def test_an_empty_file_is_an_error(tmp_path, name, text):
    with pytest.raises(TastemakerError, match="holds no prompts"):
        read_prompts(write(tmp_path / name, text))


def test_broken_json_missing_column_unknown_suffix_wrong_encoding_missing_file(tmp_path):
    with pytest.raises(TastemakerError, match="row 1 is not JSON"):
        read_prompts(write(tmp_path / "a.jsonl", "{'prompt': 1}\n"))
    with pytest.raises(UnknownName, match="Promt"):
        read_prompts(write(tmp_path / "a.tsv", "Promt\tCategory\nx\ty\n"))
    with pytest.raises(UnknownName, match=".jsonl"):
        read_prompts(write(tmp_path / "a.jsonlines", "x"))
    (tmp_path / "latin.txt").write_bytes("Dö".encode("latin-1"))
    with pytest.raises(TastemakerError, match="not UTF-8"):
        read_prompts(tmp_path / "latin.txt")
    with pytest.raises(TastemakerError, match="cannot read"):
        read_prompts(tmp_path / "nothing.txt")


def test_split_keeps_a_text_on_one_side_whatever_else_is_there():
    texts = [f"prompt {i}" for i in range(2000)]
    kept, out = split_prompts(texts, 0.2, seed=1)
    assert not {p.text for p in kept} & {p.text for p in out}
    assert len(kept) + len(out) == 2000 and 330 <= len(out) <= 470  # 400 +- 4 standard deviations
    assert split_prompts(texts[:50], 0.2, seed=1)[1] == out[: len(split_prompts(texts[:50], 0.2, seed=1)[1])]
    assert [p.text.casefold() for p in split_prompts(["  Prompt  7"], 0.2, 1)[1]] == (
        ["  prompt  7"] if Prompt("prompt 7") in out else []
    )
    assert split_prompts(texts, 0.2, seed=2)[1] != out
    with pytest.raises(TastemakerError, match="between 0 and 1"):
        split_prompts(texts, 1.0)
