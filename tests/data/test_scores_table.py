"""Scores on disk keep NaN, provenance and what could not be read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tastemaker.data.scores import Scores, read_scores, write_scores
from tastemaker.errors import TastemakerError
from tastemaker.records import Provenance


def example(**changes):
    fields = {
        "files": ("a.png", "b.png"),
        "sha256": ("00", "11"),
        "prompts": ("a cat", ""),
        "names": ("sharpness", "mine"),
        "values": torch.tensor([[0.5, float("nan")], [-1.25, 2.0]]),
        "provenance": {"sharpness": Provenance("sharpness", "", "1"), "mine": Provenance("m", "abc", "")},
        "errors": (("c.png", "truncated"),),
    }
    return Scores(**{**fields, **changes})


def test_round_trip(tmp_path):
    write_scores(tmp_path / "s.parquet", example())
    back = read_scores(tmp_path / "s.parquet")
    torch.testing.assert_close(back.values, example().values, rtol=0, atol=0, equal_nan=True)
    assert back == example(values=back.values) and back.column("mine")[1] == 2
    assert pq.read_table(tmp_path / "s.parquet")["mine"].null_count == 0
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_no_rows_and_a_foreign_table_with_nulls(tmp_path):
    empty = example(files=(), sha256=(), prompts=(), values=torch.empty(0, 2))
    write_scores(tmp_path / "e.parquet", empty)
    assert read_scores(tmp_path / "e.parquet").values.shape == (0, 2)
    text = {name: ["x", "y"] for name in ("file", "sha256", "prompt", "note")}
    pq.write_table(pa.table({**text, "r": pa.array([1.0, None])}), tmp_path / "f.parquet")
    foreign = read_scores(tmp_path / "f.parquet")
    assert foreign.names == ("r",) and foreign.values[1].isnan().all() and foreign.provenance == {}


def test_mistakes(tmp_path):
    with pytest.raises(TastemakerError, match="'prompt'"):
        write_scores(tmp_path / "s.parquet", example(names=("prompt", "mine")))
    with pytest.raises(TastemakerError, match="'mine'"):
        write_scores(tmp_path / "s.parquet", example(names=("mine", "mine")))
    with pytest.raises(TastemakerError, match="shape"):
        write_scores(tmp_path / "s.parquet", example(values=torch.zeros(3, 2)))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"file": ["a"]}), tmp_path / "lacks.parquet")
    for name, words in (
        ("bad.parquet", "cannot read"),
        ("missing.parquet", "cannot read"),
        ("lacks.parquet", "sha256"),
    ):
        with pytest.raises(TastemakerError, match=words):
            read_scores(tmp_path / name)
