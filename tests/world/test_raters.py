"""Simulated raters: probabilities, ties, and that nobody beats the ceiling while an oracle reaches it."""

import math

import pytest
import torch
from scipy import stats

from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt, Provenance
from tastemaker.world.raters import CHOICES, Taste, ceiling, choice_probabilities, utility, vote


class Brightness:
    name, differentiable, range, provenance = "brightness", True, (0.0, 1.0), Provenance("brightness")

    def score(self, images, prompts):
        return images.mean((1, 2, 3))


class Length(Brightness):
    name = "length"

    def score(self, images, prompts):
        return torch.tensor([float(len(p.text)) for p in prompts])


def pairs(count, seed=0):
    return torch.randn(2, count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ties", [0.0, 0.4, 1.0])
def test_probabilities_are_davidsons(ties):
    a, b = pairs(50)
    taste = Taste(noise=0.7, ties=ties)
    p = choice_probabilities(a, b, taste)
    torch.testing.assert_close(p.sum(1), torch.ones(50, dtype=torch.float64))
    for row, x, y in zip(p.tolist(), (a / 0.7).tolist(), (b / 0.7).tolist()):
        parts = [math.exp(x), math.exp(y), ties * math.exp((x + y) / 2)]
        assert row == pytest.approx([v / sum(parts) for v in parts], abs=1e-6)
    torch.testing.assert_close(choice_probabilities(b, a, taste)[:, [1, 0, 2]], p)


def test_the_figures_in_the_text():
    one, none = torch.ones(1), torch.zeros(1)
    assert float(choice_probabilities(one, none, Taste())[0, 0]) == pytest.approx(0.88, abs=0.005)
    assert choice_probabilities(none, none, Taste(ties=1.0))[0].tolist() == pytest.approx([1 / 3] * 3)
    assert choice_probabilities(one * 1e4, none, Taste())[0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("ties", [0.0, 0.6])
def test_an_oracle_reaches_the_ceiling_and_nobody_beats_it(ties):
    taste, count = Taste(noise=0.8, ties=ties), 6000
    a, b = pairs(count, 1)
    votes = vote(a, b, taste, range(count))
    decided = [(v, float(x - y)) for v, x, y in zip(votes, a, b) if v != "tie"]
    right = sum((v == "a") == (d > 0) for v, d in decided)
    best = ceiling(a, b, taste)
    interval = stats.binomtest(right, len(decided), best)
    assert interval.pvalue > 1e-3 and 0.6 < best < 0.95
    noisy = [d + float(n) for (_, d), n in zip(decided, torch.randn(len(decided)))]
    worse = sum((v == "a") == (d > 0) for (v, _), d in zip(decided, noisy)) / len(decided)
    assert worse < best


def test_votes_have_the_probabilities_and_follow_from_their_seeds():
    taste, count = Taste(ties=0.8), 4000
    a, b = torch.full((count,), 0.3), torch.zeros(count)
    votes = vote(a, b, taste, range(count))
    expected = choice_probabilities(a[:1], b[:1], taste)[0] * count
    assert stats.chisquare([votes.count(c) for c in CHOICES], expected.tolist()).pvalue > 1e-3
    assert votes == vote(a, b, taste, range(count)) != vote(a, b, taste, range(1, count + 1))
    assert votes[7:8] == vote(a[:1], b[:1], taste, [7])


def test_utility_is_the_weighted_sum():
    images, prompts = torch.rand(3, 3, 4, 4), [Prompt("a"), Prompt("abc"), Prompt("")]
    taste = Taste({"brightness": 2.0, "length": -0.5})
    found = utility([Brightness(), Length()], taste, images, prompts)
    torch.testing.assert_close(found, 2 * images.mean((1, 2, 3)) - 0.5 * torch.tensor([1.0, 3.0, 0.0]))
    more = utility([Brightness(), Length()], Taste({"length": 1.0}), images, prompts)
    assert more.tolist() == [1, 3, 0]


def test_a_weight_without_its_reward_is_an_error():
    with pytest.raises(TastemakerError, match="length"):
        utility([Brightness()], Taste({"brightness": 1.0, "length": 1.0}), torch.rand(1, 3, 4, 4), [Prompt("a")])


def test_a_picture_without_a_utility_gets_no_vote():
    with pytest.raises(TastemakerError, match="NaN"):
        vote(torch.tensor([1.0, float("nan")]), torch.zeros(2), Taste(), [0, 1])


def test_the_ceiling_by_hand():
    a, b = torch.tensor([0.5, 0.0]), torch.tensor([0.0, 0.0])
    expected = (1 / (1 + math.exp(-1)) + 0.5) / 2
    assert ceiling(a, b, Taste()) == pytest.approx(expected)
    with_ties = Taste(ties=1.0)
    decided = [1 - float(choice_probabilities(a[k : k + 1], b[k : k + 1], with_ties)[0, 2]) for k in (0, 1)]
    weighted = (decided[0] / (1 + math.exp(-1)) + decided[1] * 0.5) / sum(decided)
    assert ceiling(a, b, with_ties) == pytest.approx(weighted)
