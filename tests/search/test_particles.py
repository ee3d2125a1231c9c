"""Weights of particles: potentials telescope, logarithms hold where exponentials do not, draws are even."""

import math

import pytest
import torch

from tastemaker.search.particles import POTENTIALS, Lineage, difference, due, effective_size, systematic, weigh


@pytest.mark.parametrize("name", POTENTIALS)
def test_over_a_line_the_weights_multiply_to_the_tilt_of_its_end(name):
    """exp(lambda r) for `difference` and `latest`; the best and the sum for the other two."""
    rewards, potential = torch.tensor([[0.3, -0.2], [0.9, 0.4], [0.5, 0.7]]), POTENTIALS[name]
    lineage, product = Lineage.begin(rewards[0]), torch.zeros(2)
    for k, reward in enumerate(rewards):
        log_weight, lineage = weigh(reward, lineage, potential, 2.0, last=k == 2)
        product = product + log_weight
        lineage = lineage.drawn(torch.arange(2), log_weight)
    ends = {
        "difference": rewards[2],
        "latest": rewards[2],
        "maximum": rewards.amax(0).clamp_min(0),
        "total": rewards.sum(0),
    }
    torch.testing.assert_close(product, 2 * ends[name])


def test_a_line_takes_its_ancestors_along():
    lineage = Lineage(torch.tensor([1.0, 2.0]), torch.tensor([0.1, 0.2]))
    drawn = lineage.drawn(torch.tensor([1, 1]), torch.tensor([5.0, 7.0]))
    assert drawn.carried.tolist() == [2.0, 2.0]
    torch.testing.assert_close(drawn.log_product, torch.tensor([7.2, 7.2]))


def test_a_reward_that_failed_weighs_nothing_and_is_not_carried_on():
    lineage = Lineage.begin(torch.zeros(3), carried=1.0)
    for potential in POTENTIALS.values():
        log_weight, after = weigh(torch.tensor([2.0, math.nan, 0.5]), lineage, potential, 3.0)
        assert log_weight[1] == -math.inf and log_weight[[0, 2]].isfinite().all()
        assert after.carried[1] == 1.0 and after.carried.isfinite().all()
    rows = systematic(log_weight.expand(200, 3), torch.rand(200, generator=torch.Generator().manual_seed(0)))
    assert not (rows == 1).any()


def test_effective_size():
    even, one = torch.zeros(4), torch.tensor([0.0, -1e3, -1e3, -1e3])
    assert float(effective_size(even)) == pytest.approx(4) and float(effective_size(one)) == pytest.approx(1)
    assert float(effective_size(torch.full((4,), 5e3))) == pytest.approx(4)  # where exp overflows
    assert due(torch.stack([even, one])).tolist() == [False, True]


def test_systematic_draws_are_within_one_of_their_share():
    weights = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = torch.rand(2000, generator=torch.Generator().manual_seed(1))
    rows = systematic(weights.log().expand(2000, 4), uniform)
    counts = torch.stack([(rows == k).sum(1) for k in range(4)], 1)
    assert ((counts >= (4 * weights).floor()) & (counts <= (4 * weights).ceil())).all()
    torch.testing.assert_close(counts.float().mean(0), 4 * weights, atol=0.05, rtol=0)
    assert systematic(torch.zeros(3, 4), torch.tensor([0.0, 0.5, 0.999])).tolist() == [[0, 1, 2, 3]] * 3


def test_the_last_weight_of_a_difference_needs_no_correction():
    lineage = Lineage(torch.tensor([0.5]), torch.tensor([9.0]))
    assert weigh(torch.tensor([1.5]), lineage, difference, 2.0, last=True)[0].tolist() == [2.0]
