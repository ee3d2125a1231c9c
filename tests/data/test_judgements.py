"""Yes and no about pictures in the release's form: written and read, inferred where not said, refused in words."""

import json

import pytest
import torch

from tastemaker.data.images import save_image
from tastemaker.data.judgements import Judgement, quoted, read_judgements, task_of, write_judgements
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt


@pytest.fixture
def folder(tmp_path):
    for k in range(2):
        save_image(torch.full((3, 4, 4), 0.25 * k), tmp_path / "pictures" / f"{k}.png")
    return tmp_path


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def test_what_is_written_is_read(folder):
    image = folder / "pictures"
    rows = [
        Judgement(image / "0.png", Prompt("a cat"), "score", (("Is it a cat?", "Yes"),)),
        Judgement(image / "1.png", Prompt("a dog"), "potential", (("Clear?", "yes"), ("And so?", "no"))),
    ]
    (folder / "sub").mkdir()
    write_judgements(rows, folder / "sub" / "parm.json")
    found = read_judgements(folder / "sub" / "parm.json")
    assert [(f.image.resolve(), f.prompt, f.task, f.turns) for f in found] == [
        (r.image.resolve(), r.prompt, r.task, r.turns) for r in rows
    ]
    written = json.loads((folder / "sub" / "parm.json").read_text())
    assert written[0]["image"] == "../pictures/0.png" and written[1]["conversations"][2] == human("And so?")
    assert written[0]["conversations"] == [human("<image>\nIs it a cat?"), gpt("Yes")]
    assert [r.answer for r in rows] == [True, False]


def test_files_of_others_say_less(folder):
    rows = [
        {
            "image": "pictures/0.png",
            "conversations": [human('<image>\nGenerated from "a red cat". Right?'), gpt("yes")],
        },
        {
            "image": "pictures/1.png",
            "conversations": [human("<image>\nThis is a certain step of 'two dogs'"), gpt("No.")],
        },
        {
            "image": "pictures/1.png",
            "conversations": [human("<image>\nx"), gpt("yes"), human("potential?"), gpt("no")],
        },
        {"image": "pictures/1.png", "conversations": [human('<image>\n"a dog"?'), gpt("There is no dog.")]},
    ]
    (folder / "orm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_judgements(folder / "orm.jsonl")
    assert [f.task for f in found] == ["score", "clear", "potential", "critique"]
    assert [f.prompt.text for f in found] == ["a red cat", "two dogs", "x", "a dog"]
    assert [f.answer for f in found] == [True, False, False, None]


def test_quotations_and_tasks():
    assert quoted('from "a" and "a longer one"') == "a longer one" and quoted("no quotation") == "no quotation"
    assert quoted("the dog's bone of 'a cat'") == "a cat"
    assert task_of((("one", "yes"), ("two", "No"))) == "potential" and task_of((("a stepmother", "yes"),)) == "score"


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("[]", "holds no rows"),
        ("[{]", "not readable JSON"),
        ('[{"image": "pictures/0.png"}]', "row 0: expected `image` and `conversations`"),
        ('[{"image": "pictures/0.png", "conversations": [{"from": "gpt", "value": "yes"}]}]', "expected `image`"),
        ('[{"image": "gone.png", "conversations": [{"from": "human", "value": "x"}, '
         '{"from": "gpt", "value": "yes"}]}]', "there is no picture"),
        ('[{"image": "pictures/0.png", "task": "odd", "conversations": [{"from": "human", "value": "x"}, '
         '{"from": "gpt", "value": "yes"}]}]', "expected task as one of"),
    ],
)  # fmt: skip
def test_a_row_of_another_form_is_named(folder, content, sentence):
    (folder / "bad.json").write_text(content)
    with pytest.raises(TastemakerError, match=sentence):
        read_judgements(folder / "bad.json")
