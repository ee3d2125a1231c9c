"""Files of corrections go round, and lines that do not fit are named."""

import json
from pathlib import Path

import pytest
import torch

from tastemaker.data.corrections import Correction, CorrectionPictures, read_corrections, write_corrections
from tastemaker.data.images import load_image, save_image
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt


@pytest.fixture
def groups(tmp_path):
    made = []
    for k, regions in enumerate((((1, 0), (0, 0)), None)):
        paths = [tmp_path / "pictures" / f"{k}-{side}.png" for side in ("bad", "good")]
        for path in paths:
            save_image(torch.rand(3, 8, 8), path)
        made.append(Correction(Prompt("a photo of a red cat"), *paths, "not as asked: red", regions))
    return made


def test_files_go_round_and_become_pictures(groups, tmp_path):
    write_corrections(groups, tmp_path / "groups.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    assert rows[0]["bad"] == "pictures/0-bad.png" and "regions" not in rows[1]
    found = read_corrections(tmp_path / "groups.jsonl")
    assert [(f.prompt, f.reason, f.regions, Path(f.bad).resolve()) for f in found] == [
        (g.prompt, g.reason, g.regions, g.bad.resolve()) for g in groups
    ]
    data = CorrectionPictures(tuple(found), 8)
    pictures, caption = data[0]
    assert len(data) == 2 and pictures.shape == (3, 3, 8, 8) and caption.text == "a photo of a red cat red"
    torch.testing.assert_close(pictures[:2], torch.stack([load_image(groups[0].bad), load_image(groups[0].good)]))
    quarter = torch.zeros(3, 8, 8)
    quarter[:, :4, :4] = 1
    assert torch.equal(pictures[2], quarter) and data[1][0][2].isnan().all()


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"reason": 3}, "expected text in the fields prompt, bad, good, reason"),
        ({"good": "nowhere.png"}, "there is no picture .*nowhere.png"),
        ({"regions": [[1, 0], [0]]}, "expected regions as rows of 0 and 1"),
        ({"regions": [[2]]}, "expected regions as rows of 0 and 1"),
        ({"regions": []}, "expected regions as rows of 0 and 1"),
    ],
)
def test_lines_that_do_not_fit_are_named(groups, tmp_path, changed, sentence):
    path = tmp_path / "groups.jsonl"
    write_corrections(groups, path)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | changed)}\n")
    with pytest.raises(TastemakerError, match=f"groups.jsonl.*2: {sentence}"):
        read_corrections(path)
    path.write_text("")
    with pytest.raises(TastemakerError, match="holds no groups"):
        read_corrections(path)
