"""Question files as people have them."""

import json

import pytest

from tastemaker.data.questions import Question, read_questions
from tastemaker.errors import TastemakerError, UnknownName


def write(tmp_path, rows, name="questions.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_form_is_read_and_rows_of_a_prompt_belong_together(tmp_path):
    how_many = {"question": "How many?", "answer": "two", "skill": "n"}
    rows = [
        {"prompt": "two dogs", "questions": ["Are there dogs?", how_many]},
        {"prompt": "a red car", "vqa_list": [["What colour?", "red"], ["Is it?", "Yes"]], "skills": ["attribute"]},
        {"caption": "two dogs", "question": "Do they run?", "answer": "no", "element_type": "activity"},
        {"text": "two dogs", "question": "Are there dogs?"},
    ]
    found = read_questions(write(tmp_path, rows))
    assert found == {
        "two dogs": [
            Question("Are there dogs?"), Question("How many?", "two", "n"), Question("Do they run?", "no", "activity")
        ],
        "a red car": [Question("What colour?", "red", "attribute"), Question("Is it?", "Yes")],
    }  # fmt: skip
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert read_questions(tmp_path / "list.json") == found
    table = "item_id,text,category_broad,question_natural_language\nx,a cat,entity,Is there a cat?\n"
    (tmp_path / "dsg.csv").write_text(table)
    assert read_questions(tmp_path / "dsg.csv") == {"a cat": [Question("Is there a cat?", "yes", "entity")]}


@pytest.mark.parametrize(
    "row, sentence",
    [
        ({"questions": ["Is it?"]}, "row 1: expected words in the column prompt or text or caption"),
        ({"prompt": "a cat"}, "expected words in the column question or question_natural_language"),
        ({"prompt": "a cat", "questions": []}, "column `questions`: expected a list"),
        ({"prompt": "a cat", "vqa_list": [["one"]]}, "column `vqa_list`"),
        ({"prompt": "a cat", "questions": [3]}, "expected a question or an object"),
        (["a cat"], "expected an object with a prompt"),
    ],
)
def test_a_row_that_is_not_valid_is_named(tmp_path, row, sentence):
    with pytest.raises(TastemakerError, match=sentence):
        read_questions(write(tmp_path, [row]))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="kind of question file"):
        read_questions(tmp_path / "questions.xml")
    with pytest.raises(TastemakerError, match="holds no questions"):
        read_questions(write(tmp_path, []))
