"""Advantages within groups against hand-computed values, and the clipped objective."""

import math

import pytest
import torch

from tastemaker.algorithms.advantages import decoupled, mean_free, require_groups, standardised, surrogate
from tastemaker.errors import TastemakerError

NAN = math.nan
GROUPS = torch.tensor([0, 1, 0, 1, 0])


def test_what_is_above_the_groups_mean():
    found = mean_free(torch.tensor([1.0, 10.0, 2.0, 30.0, 6.0]), GROUPS)
    assert found.tolist() == [-2, -10, -1, 10, 3]
    assert mean_free(torch.tensor([1.0, 10.0, NAN, 30.0, 5.0]), GROUPS).tolist() == [-2, -10, 0, 10, 2]


def test_the_unit_of_the_reward_is_kept_or_taken_away():
    scores = torch.tensor([1.0, 10.0, 2.0, 30.0, 6.0], dtype=torch.float64)
    torch.testing.assert_close(mean_free(3 * scores, GROUPS), 3 * mean_free(scores, GROUPS))
    deviation = torch.tensor([14 / 3, 100, 14 / 3, 100, 14 / 3], dtype=torch.float64).sqrt()
    torch.testing.assert_close(standardised(scores, GROUPS), mean_free(scores, GROUPS) / (deviation + 1e-4))
    everywhere = scores.std(correction=0) + 1e-4
    torch.testing.assert_close(standardised(scores, GROUPS, everywhere=True), mean_free(scores, GROUPS) / everywhere)
    assert standardised(torch.ones(5), GROUPS).tolist() == [0] * 5
    assert standardised(torch.tensor([1.0, NAN, 3.0, 5.0, NAN]), GROUPS)[[1, 3, 4]].tolist() == [0, 0, 0]


def test_decoupled_rewards_count_alike_whatever_their_spread():
    """Summed first, the reward of spread 1000 decides alone; each by itself, both do."""
    loud, quiet = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    groups = torch.zeros(4, dtype=torch.int64)
    found = decoupled(torch.stack([loud, quiet], 1), groups, [1, 1])
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 0.0, -2.0]) / math.sqrt(2))
    assert decoupled(torch.stack([loud, quiet], 1), groups, [0, 1]).tolist() == pytest.approx([1, 1, -1, -1])
    missing = decoupled(torch.stack([loud, torch.tensor([1.0, NAN, -1.0, -1.0])], 1), groups, [1, 1])
    assert missing[1] == 0 and missing.isfinite().all()
    assert float(found.std(correction=0)) == pytest.approx(1)


def test_a_group_of_one_is_refused():
    require_groups(GROUPS)
    with pytest.raises(TastemakerError, match="at least 2 pictures in each group.* 1 of 2 groups hold one"):
        require_groups(torch.tensor([0, 0, 1]))
    with pytest.raises(TastemakerError, match="integer group ids"):
        require_groups(torch.tensor([0.0, 0.0]))


def test_the_clipped_objective_and_its_gradient():
    log = torch.tensor([0.0, 0.5, -0.5, 0.5, -0.5], requires_grad=True)
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    loss = surrogate(log, advantage, 0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([-1, -1.2, -math.exp(-0.5), math.exp(0.5), 0.8]))
    loss.sum().backward()  # at ratio 1 that of REINFORCE, -A; none where the clip has been passed for the good
    torch.testing.assert_close(log.grad, torch.tensor([-1, 0, -math.exp(-0.5), math.exp(0.5), 0]))
