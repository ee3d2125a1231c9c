"""Files of chosen and rejected pictures go round, and say which line is wrong."""

import json

import pytest
import torch

from tastemaker.data.chosen import ChosenPictures, read_chosen, write_chosen
from tastemaker.data.images import save_image
from tastemaker.data.pairs import Pair
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt


@pytest.fixture
def pictures(tmp_path):
    for k, value in enumerate((0.2, 0.8)):
        save_image(torch.full((3, 8, 12), value), tmp_path / f"images/{k}.png")
    return [tmp_path / f"images/{k}.png" for k in range(2)]


def test_pairs_go_round_with_the_better_one_as_chosen(tmp_path, pictures):
    dark, bright = pictures
    pairs = [Pair(Prompt("one"), "1", dark, bright, 1.0), Pair(Prompt("two"), "2", dark, bright, 0.0)]
    write_chosen(pairs, tmp_path / "pairs.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert rows[1] == {"prompt": "two", "chosen": "images/1.png", "rejected": "images/0.png"}
    again = read_chosen(tmp_path / "pairs.jsonl")
    assert [(p.prompt.text, p.image_a, p.preference) for p in again] == [("one", dark, 1.0), ("two", bright, 1.0)]
    for found in (pairs, again):
        data = ChosenPictures(tuple(found), 8)
        both, prompt = data[1]
        assert both.shape == (2, 3, 8, 8) and prompt.text == "two" and len(data) == 2
        torch.testing.assert_close(both.mean((1, 2, 3)), torch.tensor([0.8, 0.2]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "line, sentence",
    [
        ('{"prompt": "a", "chosen": "images/0.png"}', "row 1: expected text in the fields prompt, chosen, rejected"),
        ('{"prompt": 3, "chosen": "images/0.png", "rejected": "images/1.png"}', "row 1: expected text"),
        (
            '{"prompt": "a", "chosen": "images/0.png", "rejected": "images/9.png"}',
            "row 1: there is no picture .*9.png",
        ),
        ("[1]", "row 1: expected text"),
        ("{", "row 1 is not JSON"),
        ("", "holds no pairs"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, pictures, line, sentence):
    (tmp_path / "pairs.jsonl").write_text(line + "\n")
    with pytest.raises(TastemakerError, match=sentence):
        read_chosen(tmp_path / "pairs.jsonl")


def test_a_tie_has_no_chosen_picture(tmp_path, pictures):
    with pytest.raises(TastemakerError, match="a tie has no chosen picture"):
        write_chosen([Pair(Prompt("one"), "1", *pictures, 0.5)], tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()
