"""Bins: equal mass whatever the ties, a token of its own for what is missing, and there and back again."""

import json
import math

import pytest
import torch

from tastemaker.data import official_bins
from tastemaker.data.bins import (
    bins_of,
    equal_mass,
    equal_width,
    load_bins,
    make_bins,
    occupancy,
    require_same,
    save_bins,
)
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Provenance

SOURCE = Provenance("model", "hash", "224 px")


def drawn(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def made(scores, *rest, name="r"):
    return make_bins(name, SOURCE, scores, *rest)


def test_equal_mass_is_exact_without_ties_and_puts_ties_at_their_mid_rank():
    assert made(drawn(640)).counts == (10,) * 64
    # of 8 scores, the mid-ranks are 1/16, 3/16, then (2 + 2) / 8 = 4/8 of four equal ones, 13/16, 15/16
    scores = torch.tensor([0.0, 1, 2, 2, 2, 2, 3, 4])
    bins = made(scores, equal_mass, 4)
    assert bins.bin_of(scores).tolist() == [0, 0, 2, 2, 2, 2, 3, 3]
    assert bins.counts == (2, 0, 4, 2)
    shuffled = made(scores[torch.tensor([5, 0, 7, 3, 1, 6, 2, 4])], equal_mass, 4)
    assert shuffled == bins


def test_every_score_is_in_the_bin_of_its_mid_rank():
    scores = drawn(3000).bfloat16().float()  # a few hundred distinct values
    below = (scores[None] < scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1)
    expected = (2 * below + equal) * 64 // (2 * len(scores))
    assert torch.equal(made(scores).bin_of(scores), expected)


def test_mass_stays_even_on_a_coarse_grid_where_the_released_rule_becomes_one_of_width():
    scores = (0.3 + 0.02 * drawn(100_000)).half().float()
    ours = torch.tensor(made(scores).counts) / len(scores)
    edges = official_bins.unique_quantile_edges(scores)
    theirs = official_bins.level(scores, edges).mul(63).round().long().bincount(minlength=64) / len(scores)
    assert ours[-1] > 0.014 and ours.max() < 0.022  # 1/64 = 0.0156, one value holds 0.005
    assert theirs[-1] < 0.002 and theirs.max() > 0.03


def test_equal_width_has_bins_of_one_width():
    bins = made(torch.tensor([0.0, 0.1, 0.9, 1.0]), equal_width, 4)
    assert bins.inner == (0.25, 0.5, 0.75) and bins.counts == (2, 0, 0, 2)
    assert bins.bin_of(torch.tensor([-9.0, 0.25, 9.0])).tolist() == [0, 1, 3]


@pytest.mark.parametrize("rule", [equal_mass, equal_width])
def test_one_value_is_in_the_middle_and_others_fall_to_its_sides(rule):
    bins = made(torch.full((50,), 0.4), rule)
    assert bins.bin_of(torch.tensor([-2.0, 0.4, 2.0])).tolist() == [0, 32, 63]


def test_a_missing_score_has_its_own_index_and_takes_no_part():
    scores = drawn(640)
    holed = torch.cat([scores, torch.full((60,), math.nan)])
    bins = made(holed)
    assert bins.inner == made(scores).inner and (bins.missing, len(bins)) == (60, 64)
    assert bins.bin_of(holed)[640:].unique().tolist() == [64]
    assert bins.score_of(torch.tensor([64])).isnan().all()
    assert bins.percentile_of(torch.tensor([math.nan])).isnan().all()
    both = torch.stack([holed, -holed], 1)
    indices = bins_of([bins, made(-holed)], both)
    assert indices[640:].unique().tolist() == [64] and torch.equal(indices[:640].sum(1), torch.full((640,), 63))


@pytest.mark.parametrize("rule", [equal_mass, equal_width])
def test_a_bin_s_score_lies_in_the_bin(rule):
    bins = made(drawn(5000).half().float(), rule)
    filled = torch.tensor(bins.counts).nonzero()[:, 0]
    assert torch.equal(bins.bin_of(bins.score_of(filled)), filled)


def test_percentiles_there_and_back():
    scores = drawn(20_000)
    bins = made(scores)
    shares = torch.tensor([0.0, 0.01, 0.25, 0.5, 0.75, 0.999, 1.0])
    found = bins.score_at(shares)
    torch.testing.assert_close(found, torch.quantile(scores.double(), shares.double()), atol=1e-3, rtol=0)
    torch.testing.assert_close(bins.percentile_of(found), shares.double(), atol=1e-9, rtol=0)
    assert bins.percentile_of(torch.tensor([-99.0, 99.0])).tolist() == [0, 1]
    half_at_two = made(torch.tensor([1.0] * 250 + [2.0] * 500 + [3.0] * 250))
    assert half_at_two.percentile_of(torch.tensor([2.0])).item() == pytest.approx(0.5, abs=2e-3)
    assert (bins.percentile_of(scores[:100]) * 64 - bins.bin_of(scores[:100]) - 0.5).abs().max() < 0.6


def test_the_file_reads_back_equal_and_tells_of_changes(tmp_path):
    path, kept = tmp_path / "bins.json", [made(drawn(500), name="a"), made(drawn(500, 1), equal_width, 8, name="b")]
    save_bins(path, kept)
    assert load_bins(path) == kept and [b.version for b in load_bins(path)] == [b.version for b in kept]
    assert kept[0].version != made(drawn(500, 1), name="a").version
    said = json.loads(path.read_text())
    said["bins"][1]["inner"][0] += 1e-3
    path.write_text(json.dumps(said))
    with pytest.raises(TastemakerError, match="the bins of 'b' are not those of version"):
        load_bins(path)
    path.write_text('{"format": 99}')
    with pytest.raises(TastemakerError, match="no file of bins in format 1"):
        load_bins(path)
    path.write_text('{"format": 1, "bins": [{"reward": "a"}]}')
    with pytest.raises(TastemakerError, match="no whole file"):
        load_bins(path)


def test_a_reward_of_another_version_is_named():
    bins = [made(drawn(99))]
    require_same(bins, {"r": SOURCE, "other": Provenance("x")})
    with pytest.raises(TastemakerError, match="reward 'r' is .*other-hash.* made from .*'hash'"):
        require_same(bins, {"r": Provenance("model", "other-hash", "224 px")})
    with pytest.raises(UnknownName, match="unknown reward 'r'"):
        require_same(bins, {"q": SOURCE})


def test_the_report_says_how_evenly_the_bins_are_filled():
    tied = made(torch.tensor([0.0, 1, 1, 1, math.nan]), equal_width, 4)
    _, even, uneven = (" ".join(line.split()) for line in occupancy([made(drawn(640)), tied]).split("\n"))
    assert even == "r equal_mass 64 640 0 0 1.56 % 1.56 % 1.56 % 64.0"
    assert uneven == "r equal_width 4 4 1 2 25.00 % 75.00 % 75.00 % 1.8"


@pytest.mark.parametrize(
    "scores", [torch.empty(0), torch.full((3,), math.nan), torch.tensor([0.0, math.inf]), torch.zeros(2, 2)]
)
def test_scores_that_cannot_be_binned_are_refused(scores):
    with pytest.raises(TastemakerError, match="expected"):
        made(scores)


def test_targets_outside_what_there_is_are_refused():
    bins = made(drawn(99))
    with pytest.raises(TastemakerError, match="from 0 to 64"):
        bins.score_of(torch.tensor([65]))
    with pytest.raises(TastemakerError, match="from 0 to 1"):
        bins.score_at(torch.tensor([1.5]))
