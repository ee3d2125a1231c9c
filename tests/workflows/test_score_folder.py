"""Scoring pictures on disk: each at its own size, bad ones listed, the table whole or absent."""

import errno
import io
from dataclasses import dataclass, field

import pytest
import torch
from rich.console import Console

from tastemaker.data.images import content_hash, load_image, save_image
from tastemaker.data.scores import read_scores
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Provenance
from tastemaker.rewards.custom import CustomReward
from tastemaker.rewards.table import load_rewards
from tastemaker.workflows import reading
from tastemaker.workflows import score as scoring
from tastemaker.workflows.score import score_folder


def reward(function, name="mine"):
    return CustomReward(function, name, False, (0, 1), Provenance(name, "hash", "1"))


@dataclass
class Watched:
    """Mean brightness, and the batches it was asked for."""

    shapes: list = field(default_factory=list)

    def __call__(self, images, prompts):
        self.shapes.append(tuple(images.shape))
        return images.mean((1, 2, 3)) + torch.tensor([float(len(p.text)) for p in prompts])


def quiet():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(10):
        size = [(8, 8), (8, 12), (20, 6)][i % 3]
        save_image(torch.rand(3, *size, generator=torch.Generator().manual_seed(i)), pictures / f"{i}.png")
    return pictures


def test_each_picture_at_its_own_size_in_batches_of_one_size(folder, tmp_path):
    watched = Watched()
    scores = score_folder([reward(watched)], folder, tmp_path / "s.parquet", batch=2, console=quiet())
    assert scores.files == tuple(f"{i}.png" for i in range(10))
    expected = torch.stack([load_image(folder / f).mean() for f in scores.files])
    torch.testing.assert_close(scores.column("mine"), expected)
    assert max(s[0] for s in watched.shapes) == 2 and sum(s[0] for s in watched.shapes) == 10
    assert {s[2:] for s in watched.shapes} == {(8, 8), (8, 12), (20, 6)}
    assert scores.sha256[3] == content_hash(folder / "3.png")
    back = read_scores(tmp_path / "s.parquet")
    assert back.files == scores.files and back.provenance["mine"] == Provenance("mine", "hash", "1")


def test_few_pictures_wait_when_every_size_differs(tmp_path):
    pictures = tmp_path / "p"
    for i in range(12):
        pictures.mkdir(exist_ok=True)
        save_image(torch.zeros(3, 4 + i, 4), pictures / f"{i:02}.png")
    held = []
    jobs = scoring.list_jobs(pictures)
    for ready, _ in scoring.group_by_size(jobs, 1, {}, {}):
        held.append(ready[0].index)
    assert sorted(held) == list(range(12)) and held[0] == 0  # a batch of 1 never waits
    groups = list(scoring.group_by_size(jobs, 2, {}, {}))
    assert len(groups) == 12 and groups[0][0][0].index < reading.HELD * 2


def test_batch_size_changes_nothing_for_the_shipped_rewards(folder, tmp_path):
    rewards = load_rewards("sharpness,harmony,compressibility")
    one, many = (
        score_folder(rewards, folder, tmp_path / "s.parquet", batch=b, console=quiet()).values for b in (1, 64)
    )
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


def test_unreadable_pictures_are_left_out_with_the_reason(folder, tmp_path):
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:40])
    (folder / "notes.jpg").write_text("no picture")
    console = quiet()
    scores = score_folder([reward(Watched())], folder, tmp_path / "s.parquet", console=console)
    assert len(scores.files) == 9 and "4.png" not in scores.files
    assert [name for name, _ in read_scores(tmp_path / "s.parquet").errors] == ["4.png", "notes.jpg"]
    assert "left out: cannot read" in console.file.getvalue() and "wrote" in console.file.getvalue()


def test_nan_stays_and_is_counted(folder, tmp_path):
    def sometimes(images, prompts):
        return torch.where(images.mean((1, 2, 3)) > 0.5, float("nan"), 1.0)

    console = quiet()
    scores = score_folder([reward(sometimes)], folder, tmp_path / "s.parquet", console=console)
    missing = int(scores.values.isnan().sum())
    assert 0 < missing < 10 and f"no score for {missing} pictures" in console.file.getvalue()


def test_prompts_from_csv_text_files_a_mapping_or_one_for_all(folder, tmp_path):
    (folder / "a.csv").write_text("file,prompt\n3.png,four\n1.png,\n3.png,again\n")
    (folder / "1.txt").write_text("one\n")

    def prompts(path, given=None):
        return score_folder([reward(Watched())], path, tmp_path / "s.parquet", given, console=quiet()).prompts

    assert prompts(folder / "a.csv") == ("four", "", "again")
    assert prompts(folder)[:3] == ("", "one", "")
    assert prompts(folder / "1.png", "a dog") == ("a dog",)
    assert prompts(folder / "a.csv", {"3.png": "x", "1.png": "y"}) == ("x", "y", "x")
    with pytest.raises(UnknownName, match="1.png"):
        prompts(folder / "a.csv", {"3.png": "x"})


def test_mistakes_leave_no_table(folder, tmp_path, monkeypatch):
    out = tmp_path / "out" / "s.parquet"

    def breaks(images, prompts):
        raise RuntimeError("no memory")

    with pytest.raises(TastemakerError, match="'mine' raised RuntimeError: no memory"):
        score_folder([reward(breaks)], folder, out, console=quiet())
    with pytest.raises(TastemakerError, match="names of their own"):
        score_folder([reward(breaks), reward(breaks)], folder, out, console=quiet())
    (folder / "a.csv").write_text("picture\n1.png\n")
    with pytest.raises(UnknownName, match="picture"):
        score_folder([reward(breaks)], folder / "a.csv", out, console=quiet())
    with pytest.raises(TastemakerError, match="none of the 1 pictures"):
        score_folder([reward(breaks)], tmp_path / "absent.png", out, console=quiet())

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(TastemakerError, match="disk is full"):
        score_folder([reward(Watched())], folder, out, console=quiet())
    assert not out.exists() and not list(out.parent.iterdir())
