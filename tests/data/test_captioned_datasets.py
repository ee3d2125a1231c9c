"""A user's own pictures: the three sources, bad files by name, and a held-out side that shares no label."""

import io
import json
import os
import tarfile

import pytest
import torch

from tastemaker.data.datasets import fill, from_csv, from_folder, from_tar
from tastemaker.data.images import pad_square, save_image
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt


def picture(path, value=0.5, height=8, width=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(torch.full((3, height, width), value), path)
    return path


def png(value=0.5):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return picture(Path(folder) / "a.png", value).read_bytes()


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"label": "red apple", "tags": "fruit|red"}, "red apple, fruit, red"),
        ({"label": "red apple", "tags": ""}, "red apple"),
        ({"label": "", "tags": "fruit"}, "fruit"),
        ({"label": "", "tags": ""}, ""),
    ],
)
def test_a_template_leaves_out_what_is_missing(row, expected):
    assert fill("{label}, {tags}", row) == expected


def test_a_template_keeps_its_own_words():
    assert fill("a photo of {a}, {b} ({c})", {"a": "x", "b": "", "c": "z"}) == "a photo of x (z)"
    assert fill("{a} on {b}.", {"a": "x", "b": "y"}) == "x on y."
    assert fill("a photo of {a}, {b}", {"a": "", "b": "y"}) == "a photo of y"
    assert fill("a photo of {a}", {"a": " "}) == "" and fill("a picture", {}) == "a picture"


def test_folder_with_captions(tmp_path):
    picture(tmp_path / "cats/a.png", 0.2, 8, 16)
    (tmp_path / "cats/a.txt").write_text("a  cat\non a mat\n")
    picture(tmp_path / "b.png", 0.8)
    (tmp_path / "b.txt").write_text("b")
    data = from_folder(tmp_path, 4)
    assert len(data) == 2 and data.problems() == []
    image, prompt = data[1]
    assert prompt == Prompt("a cat on a mat", label=0) and data[0][1] == Prompt("b")
    assert image.shape == (3, 4, 4) and image.dtype == torch.float32
    torch.testing.assert_close(image, torch.full((3, 4, 4), 0.2), atol=0.003, rtol=0)
    assert (from_folder(tmp_path, 16, pad_square)[1][0][:, :4] == 1).all()


def test_bad_files_are_listed_raised_by_name_and_left_out_only_on_demand(tmp_path):
    for name in ("good", "cut", "lonely", "silent"):
        picture(tmp_path / f"{name}.png")
    for name in ("good", "cut", "nowhere"):
        (tmp_path / f"{name}.txt").write_text("words")
    (tmp_path / "silent.txt").write_text(" \n")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:30])
    data = from_folder(tmp_path, 8)
    assert len(data) == 4
    listed = "\n".join(data.problems())
    assert all(word in listed for word in ("cut.png", "lonely.png", "silent.txt", "nowhere.txt"))
    assert "good" not in listed and len(data.problems()) == 4
    for i, row in enumerate(data.rows):
        if row.source.path.stem != "good":
            with pytest.raises(TastemakerError, match=row.source.path.stem):
                data[i]
    assert [r.source.path.stem for r in data.readable().rows] == ["good"]


def write_csv(tmp_path, text):
    (tmp_path / "c.csv").write_text(text)
    return tmp_path / "c.csv"


def test_csv_with_configurable_columns_and_template(tmp_path):
    picture(tmp_path / "art/x.png", 0.1)
    file = write_csv(tmp_path, 'path,label,tags\nart/x.png,"apple, red",fruit|round\nart/x.png,pear,\n')
    data = from_csv(file, 8, file="path", caption="{label}, {tags}", label="label")
    assert [data[i][1] for i in range(2)] == [Prompt("apple, red, fruit, round", 0), Prompt("pear", 1)]
    assert data.classes == ("apple, red", "pear")
    assert from_csv(file, 8, file="path", caption="tags").problems() == [f"{file} line 3 has no caption"]


def test_csv_duplicates_count_once_and_problems_name_the_line(tmp_path):
    picture(tmp_path / "x.png")
    file = write_csv(tmp_path, "file,caption\nx.png,a\nx.png,a\nx.png,\ngone.png,b\n,c\n")
    data = from_csv(file, 8)
    problems = data.problems()
    assert len(data) == 4 and len(problems) == 3
    assert "line 4" in problems[0] and "gone.png" in problems[1] and "line 6" in problems[2]


def test_csv_mistakes(tmp_path):
    file = write_csv(tmp_path, "file,capton\nx.png,a\n")
    with pytest.raises(UnknownName, match="capton"):
        from_csv(file, 8)
    with pytest.raises(UnknownName, match="'lable'"):
        from_csv(file, 8, caption="capton", label="lable")
    with pytest.raises(TastemakerError, match="template"):
        from_csv(file, 8, caption="{capton")
    with pytest.raises(TastemakerError, match="no captioned pictures"):
        from_csv(write_csv(tmp_path, "file,caption\n"), 8)


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_webdataset_tars(tmp_path):
    a = write_tar(
        tmp_path / "a.tar",
        [("s/1.jpg.txt", b"stray"), ("s/2.png", png(0.2)), ("s/2.txt", b"two\n"), ("s/2.seg.png", png())],
    )
    words = json.dumps({"caption": "three", "text": "drei", "label": "n3"}).encode()
    b = write_tar(tmp_path / "b.tar", [("3.PNG", png(0.6)), ("3.json", words), ("4.png", png())])
    data = from_tar([a, b], 8)
    assert [r.caption for r in data.rows] == ["two", "three", ""]
    assert data[0][1] == Prompt("two") and data[1][1] == Prompt("three", label=0)
    assert abs(float(data[0][0].mean()) - 0.2) < 0.003 and abs(float(data[1][0].mean()) - 0.6) < 0.003
    problems = data.problems()
    assert len(problems) == 2 and "s/1.jpg.txt" in problems[0] and "4.png" in problems[1]
    assert from_tar(b, 8, caption="text")[0][1].text == "drei"


def test_tars_are_read_in_place_and_never_followed_or_unpickled(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    path = write_tar(
        tmp_path / "a.tar",
        [("../../evil.png", png()), ("../../evil.txt", b"words"), ("1.png", png()), ("1.pkl", b"cos\nsystem\n")],
    )
    with tarfile.open(path, "a") as tar:
        for name, kind in (("1.txt", tarfile.SYMTYPE), ("5.png", tarfile.LNKTYPE), ("6.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.txt")
            tar.addfile(info)
    before = sorted(os.listdir(tmp_path))
    data = from_tar(path, 8)
    assert [r.caption for r in data.rows] == ["words", ""] and "1.png has no caption" in data.problems()[0]
    assert sorted(os.listdir(tmp_path)) == before and not (tmp_path / "../../evil.png").exists()


def test_tar_mistakes(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.png", png()), ("1.json", b"{}"), ("2.png", png()), ("2.json", b"{")])
    assert all("caption" in p and ".json" in p for p in from_tar(path, 8).problems())
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(path, "x")
    with pytest.raises(TastemakerError, match="uncompressed"):
        from_tar(tmp_path / "b.tar.gz", 8)
    cut = write_tar(tmp_path / "c.tar", [("1.txt", b"words"), ("1.png", b"x" * 2000)])
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(TastemakerError, match="c.tar"):
        from_tar(cut, 8)
    with pytest.raises(TastemakerError, match="missing.tar"):
        from_tar(tmp_path / "missing.tar", 8)


def test_held_out_shares_no_label(tmp_path):
    picture(tmp_path / "x.png")
    lines = [f"x.png,caption {i},label {i % 40}" for i in range(200)]
    data = from_csv(write_csv(tmp_path, "\n".join(["file,caption,label", *lines])), 8, label="label")
    kept, out = data.held_out(0.25, seed=0, by="label")
    assert len(kept) + len(out) == 200 and not {r.label for r in kept.rows} & {r.label for r in out.rows}
    assert len(out) == 5 * len({r.label for r in out.rows}) and 2 <= len(out) / 5 <= 20
    row = out.rows[0]
    assert out[0][1].label == data.classes.index(row.label) == data[data.rows.index(row)][1].label
    assert data.held_out(0.25, seed=0)[1].rows == out.rows != data.held_out(0.25, seed=1)[1].rows
    kept, out = data.held_out(0.25, by="caption")
    assert not {r.caption for r in kept.rows} & {r.caption for r in out.rows}
    with pytest.raises(TastemakerError, match="by='caption'"):
        data.held_out(0.25, by="tags")
    with pytest.raises(TastemakerError, match="one side empty"):
        data.held_out(1e-9)
    with pytest.raises(TastemakerError, match="no label"):
        from_csv(tmp_path / "c.csv", 8).held_out(0.2)
