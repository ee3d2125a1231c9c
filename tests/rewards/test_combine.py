"""Combining rewards: closed forms, and NaN that neither spreads nor counts."""

import pytest
import torch

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.rewards.combine import pareto_front, pareto_rank, rank, weighted_sum, weights_of, zscore

NAN = float("nan")


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(b), equal_nan=True)


def test_zscore_in_closed_form():
    close(zscore(torch.tensor([[1.0, 5], [2, 5], [3, 5]])), [[-(1.5**0.5), 0], [0, 0], [1.5**0.5, 0]])


def test_nan_stays_and_takes_no_part():
    scores = torch.tensor([[1.0, 0], [NAN, 2], [3, NAN], [NAN, NAN]])
    close(zscore(scores), [[-1.0, -1], [NAN, 1], [1, NAN], [NAN, NAN]])
    close(rank(scores), [[0.0, 0], [NAN, 1], [1, NAN], [NAN, NAN]])
    close(zscore(torch.full((2, 1), NAN)), [[NAN], [NAN]])


def test_rank_counts_ties_half_and_ignores_scale():
    scores = torch.tensor([[3.0], [1], [3], [7]])
    close(rank(scores), [[0.5], [0], [0.5], [1.0]])
    close(rank(scores), rank(scores.exp()))
    close(rank(torch.tensor([[4.0]])), [[0.5]])


def test_rank_agrees_with_counting():
    column = torch.randint(0, 6, (50, 1), generator=torch.Generator().manual_seed(0)).float()
    beaten = (column > column.T).float().sum(1) + ((column == column.T).float().sum(1) - 1) / 2
    close(rank(column)[:, 0], beaten / 49)


def test_a_constant_column_with_rounding_has_no_spread():
    close(zscore(torch.full((7, 1), 0.1)), torch.zeros(7, 1))


def test_sets_are_apart_and_rows_keep_their_order():
    scores = torch.tensor([[1.0], [10], [3], [30], [NAN]])
    sets = torch.tensor([7, 2, 7, 2, 2])
    close(zscore(scores, sets), [[-1.0], [-1], [1], [1], [NAN]])
    close(rank(scores, sets), [[0.0], [0], [1], [1], [NAN]])
    assert pareto_front(scores, sets).tolist() == [False, False, True, True, False]


def test_weighted_sum_is_nan_where_any_score_is_missing():
    scores = torch.tensor([[1.0, 2], [NAN, 1], [0, 0]])
    close(weighted_sum(scores, [0.5, 2.0]), [4.5, NAN, 0])
    close(weighted_sum(scores, [0.0, 1.0]), [2.0, NAN, 0])
    with pytest.raises(TastemakerError, match="2 weights"):
        weighted_sum(scores, [1.0])


def test_weights_by_name():
    close(weights_of(["a", "b"], {"b": 0.25}), [1.0, 0.25])
    with pytest.raises(UnknownName, match="sharpness"):
        weights_of(["sharpness"], {"sharpnes": 1.0})


def test_pareto_by_hand():
    scores = torch.tensor([[0.0, 3], [1, 2], [1, 2], [1, 1], [0, 0], [2, NAN]])
    assert pareto_front(scores).tolist() == [True, True, True, False, False, False]
    assert pareto_rank(scores).tolist() == [0, 0, 0, 1, 2, -1]


def test_front_agrees_with_the_definition():
    scores = torch.randint(0, 5, (60, 3), generator=torch.Generator().manual_seed(1)).float()
    better = (scores[:, None] >= scores).all(2) & (scores[:, None] > scores).any(2)  # [i, j]: i dominates j
    assert torch.equal(pareto_front(scores), ~better.any(0))
    ranks = pareto_rank(scores)
    assert all(ranks[i] < ranks[j] for i, j in better.nonzero().tolist())


def test_no_rows_and_wrong_shapes():
    empty = torch.empty(0, 2)
    assert zscore(empty).shape == (0, 2) and rank(empty).shape == (0, 2) and pareto_front(empty).shape == (0,)
    with pytest.raises(TastemakerError, match=r"\(B, R\)"):
        zscore(torch.zeros(3))
    with pytest.raises(TastemakerError, match="set ids"):
        rank(torch.zeros(3, 1), torch.zeros(3))
