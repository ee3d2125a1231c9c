"""Scored sets: what was written is read, rows stay together, another source is refused."""

import pytest
import torch

from tastemaker.data.bins import described, from_description, levels_of, make_bins
from tastemaker.data.scored_set import Piece, read_scored_set, write_scored_set
from tastemaker.errors import TastemakerError
from tastemaker.records import Provenance

NAN = float("nan")
REWARDS = {"a b": Provenance("x", "1"), "c": Provenance("y")}
SOURCE = {"seed": 1, "fields": ("caption", "short")}


def piece(first, count):
    rows = torch.arange(first, first + count)
    pixels = rows.byte()[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    words = [[f"{kind} {k}" for k in rows.tolist()] for kind in ("own", "other")]
    scores = torch.stack([torch.stack([rows + 0.5, -rows.float()], 1), torch.full((count, 2), NAN)])
    return Piece(pixels, words, scores)


def write(folder, count=7):
    write_scored_set(folder, 2, count, REWARDS, SOURCE, [piece(0, 4), piece(4, 3)])


def test_rows_stay_together(tmp_path):
    write(tmp_path / "set")
    found = read_scored_set(tmp_path / "set", SOURCE)
    assert len(found) == 7 and dict(found.rewards) == REWARDS and found.scores.shape == (2, 7, 2)
    few = found.take(torch.tensor([6, 2, 3])).take(torch.tensor([0, 2]))
    assert [int(few[k][0][0, 0, 0] * 255 + 0.5) for k in range(2)] == [6, 3]
    assert [few[k][1].text for k in range(2)] == ["own 6", "own 3"] and few.captions[1] == ("other 6", "other 3")
    assert few.scores[0].tolist() == [[6.5, -6], [3.5, -3]] and few.scores[1].isnan().all()


def test_what_is_not_whole_or_of_another_source_is_refused(tmp_path):
    with pytest.raises(TastemakerError, match="expected 8 pictures .* got 7"):
        write(tmp_path / "short", 8)
    assert not (tmp_path / "short" / "about.json").exists()
    write(tmp_path)
    with pytest.raises(TastemakerError, match=r"something else: seed differ"):
        read_scored_set(tmp_path, SOURCE | {"seed": 2})
    (tmp_path / "pictures.npy").write_bytes(b"no array")
    with pytest.raises(TastemakerError, match="no whole scored set"):
        read_scored_set(tmp_path, SOURCE)


def test_levels_are_bins_from_nothing_to_one():
    scores = torch.arange(40.0)
    bins = [make_bins(n, Provenance("x"), s, bins=5) for n, s in (("up", scores), ("down", -scores))]
    both = torch.stack([scores, -scores], 1).reshape(2, 20, 2)
    both[1, 3, 0] = NAN
    levels = levels_of(bins, both)
    assert levels.shape == (2, 20, 2) and levels[0, 0].tolist() == [0, 1] and levels[1, 19].tolist() == [1, 0]
    assert levels[1, 3, 0].isnan() and set(levels[~levels.isnan()].tolist()) == {0, 0.25, 0.5, 0.75, 1}
    with pytest.raises(TastemakerError, match=r"\(..., 2\)"):
        levels_of(bins, scores)
    assert from_description(described(bins), "here") == bins
    rows = described(bins)
    rows[1]["inner"] = [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(TastemakerError, match="here: the bins of 'down' are not those of version"):
        from_description(rows, "here")
