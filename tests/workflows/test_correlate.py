"""Agreement with people: known rank correlations, the right columns, and prompts as the unit of the interval."""

import io
import math

import pytest
import torch
from rich.console import Console

from tastemaker.data.scores import Scores, write_scores
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.workflows.correlate import correlate, print_correlations


def scores(values, names=("good", "noise")):
    files = tuple(f"{i}.png" for i in range(len(values)))
    return Scores(files, files, ("",) * len(values), names, values)


@pytest.fixture
def example(tmp_path):
    """60 pictures of 20 prompts by two makers: quality follows `good` in each maker, who differ by a constant."""
    g = torch.Generator().manual_seed(0)
    good, noise = torch.randn(60, generator=g), torch.randn(60, generator=g)
    lines = ["file,prompt,maker,mos_quality,std_quality"]
    lines += [f"{i}.png,p{i % 20},m{i % 2},{math.exp(good[i]) - 50 * (i % 2)},0.1" for i in range(60)]
    (tmp_path / "r.csv").write_text("\n".join(lines) + "\nnot_scored.png,p1,m0,1,1\n")
    return scores(torch.stack([good + 3 * (torch.arange(60) % 2), noise], 1)), tmp_path / "r.csv"


def test_columns_are_found_and_counts_are_right(example):
    found = correlate(*example, resamples=200)
    assert [(c.reward, c.human) for c in found] == [("good", "mos_quality"), ("noise", "mos_quality")]
    assert all(c.spearman.count == 60 and c.prompts == 20 for c in found)
    assert found[1].spearman.low < 0 < found[1].spearman.high
    assert correlate(*example, columns=["std_quality", "mos_quality"][1:], resamples=50)[0].human == "mos_quality"


def test_within_a_group_the_groups_difference_says_nothing(example):
    across, inside = correlate(*example, resamples=50)[0], correlate(*example, within="maker", resamples=50)[0]
    assert across.spearman.value < 0 and inside.spearman.value == pytest.approx(1.0)


def test_nan_is_left_out_and_counted(example):
    table, ratings = example
    table.values[:5, 0] = float("nan")
    with pytest.warns(UserWarning, match="5 of 60"):
        found = correlate(table, ratings, within="maker", resamples=50)
    assert found[0].spearman.count == 55 and found[0].spearman.value > 0.99


def test_from_a_file_and_printed_within_80_columns(example, tmp_path):
    write_scores(tmp_path / "s.parquet", example[0])
    console = Console(file=io.StringIO(), width=80)
    print_correlations(correlate(tmp_path / "s.parquet", example[1], resamples=50), console)
    text = console.file.getvalue()
    assert "mos_quality" in text and "…" not in text


def test_mistakes(example, tmp_path):
    table, ratings = example
    with pytest.raises(UnknownName, match="mos_quality"):
        correlate(table, ratings, columns=["mos_qualty"])
    with pytest.raises(UnknownName, match="maker"):
        correlate(table, ratings, within="makr")
    with pytest.raises(TastemakerError, match="expected a number for 0.png, got 'm0'"):
        correlate(table, ratings, columns=["maker"])
    (tmp_path / "other.csv").write_text("file,mos\nelsewhere.png,1\n")
    with pytest.raises(TastemakerError, match="no picture of the scores"):
        correlate(table, tmp_path / "other.csv")
    (tmp_path / "other.csv").write_text("name,mos\n0.png,1\n")
    with pytest.raises(UnknownName, match="file"):
        correlate(table, tmp_path / "other.csv")
