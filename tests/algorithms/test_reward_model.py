"""Reward models: the losses against closed forms, what they converge to, bags, the kept best, resuming."""

import itertools
import math

import pytest
import torch
from scipy import optimize
from torch import nn

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.reward_model import (
    Config,
    Selection,
    accuracy,
    bags,
    davidson,
    half_votes,
    objective_of,
    train,
    without_ties,
)
from tastemaker.data.pair_batches import PairBatches
from tastemaker.data.pairs import Pair
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt

PREFERENCE = torch.tensor([1.0, 0.0, 0.5])


class Table:
    """A scorer with one free number per picture: what the loss itself wants, without any network's ideas."""

    def __init__(self, pictures, members=1):
        self.network = nn.Embedding(pictures, members)
        nn.init.zeros_(self.network.weight)

    def logits(self, pictures, prompts):
        return self.network(pictures.long()).T


class Linear:
    """Scores from pixels, so that it can generalise."""

    def __init__(self, width, members=1):
        self.network = nn.Linear(width, members)
        nn.init.zeros_(self.network.weight)

    def logits(self, pictures, prompts):
        return self.network(pictures).T


def pairs_between(names, preference, prompt="p"):
    return [Pair(Prompt(prompt), prompt, a, b, preference(a, b)) for a, b in itertools.combinations(names, 2)]


def test_the_losses_by_hand():
    margin = torch.tensor([0.7, 0.7, 0.7])
    sigma = 1 / (1 + math.exp(-0.7))
    assert without_ties(margin, PREFERENCE).tolist() == pytest.approx([-math.log(sigma), -math.log(1 - sigma), 0])
    halves = -(math.log(sigma) + math.log(1 - sigma)) / 2
    assert half_votes(margin, PREFERENCE).tolist() == pytest.approx(
        [-math.log(sigma), -math.log(1 - sigma), halves], rel=1e-5
    )
    odds = [math.exp(0.35), math.exp(-0.35), 0.4]
    expected = [-math.log(o / sum(odds)) for o in odds]
    assert davidson(margin, PREFERENCE, 0.4).tolist() == pytest.approx(expected, rel=1e-5)


def test_davidson_without_ties_is_bradley_terry():
    margin = torch.linspace(-4, 4, 9)
    for preference in (torch.ones(9), torch.zeros(9)):
        torch.testing.assert_close(davidson(margin, preference, 1e-12), without_ties(margin, preference))
        torch.testing.assert_close(half_votes(margin, preference), without_ties(margin, preference))


@pytest.mark.parametrize("objective", [without_ties, half_votes, davidson])
def test_swapping_the_pictures_changes_nothing_and_members_are_rows(objective):
    margin = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    preference = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.5, 0.0])
    found = objective(margin, preference)
    assert found.shape == (3, 6) and (found >= 0).all()
    torch.testing.assert_close(found, objective(-margin, 1 - preference))
    torch.testing.assert_close(found[1], objective(margin[1], preference))


def votes_with_ties():
    """30 times each of three pictures' pairs: how often a, b and tie were said."""
    said = {(0, 1): (18, 6, 6), (0, 2): (24, 2, 4), (1, 2): (15, 9, 6)}
    return [
        Pair(Prompt("p"), "p", a, b, preference)
        for (a, b), counts in said.items()
        for preference, count in zip((1.0, 0.0, 0.5), counts)
        for _ in range(count)
    ]


@pytest.mark.parametrize("ties", ["drop", "half", "davidson"])
def test_training_finds_the_maximum_likelihood(ties):
    pairs, config = votes_with_ties(), Config(steps=600, batch_size=90, ties=ties, members=1, validate_every=600)
    scorer = Table(3)
    state = begin(scorer.network, OptimiserConfig(learning_rate=0.05, cosine_steps=600))
    batches = PairBatches(pairs, torch.tensor, 90)
    for _ in train(scorer, batches, batches, config, Selection(state)):
        pass
    a, b = (torch.tensor([getattr(p, side) for p in pairs]) for side in ("image_a", "image_b"))
    preference = torch.tensor([p.preference for p in pairs], dtype=torch.float64)

    def loss(values):
        strengths = torch.tensor([0.0, *values], dtype=torch.float64)
        return float(objective_of(config)(strengths[a] - strengths[b], preference).mean())

    best = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12}).x
    found = scorer.network.weight.detach()[:, 0]
    assert (found[1:] - found[0]).tolist() == pytest.approx(best.tolist(), abs=0.01)


def test_a_weight_is_as_many_votes():
    """A pair of weight 3 pulls as three pairs do."""
    one = [Pair(Prompt("p"), "p", 0, 1, 1.0, weight=3.0), Pair(Prompt("p"), "p", 0, 1, 0.0)]
    scorer, config = Table(2), Config(steps=400, batch_size=2, members=1, validate_every=400)
    state = begin(scorer.network, OptimiserConfig(learning_rate=0.05, cosine_steps=400))
    batches = PairBatches(one, torch.tensor, 2)
    for _ in train(scorer, batches, batches, config, Selection(state)):
        pass
    found = scorer.network.weight.detach()[:, 0]
    assert float(found[0] - found[1]) == pytest.approx(math.log(3), abs=0.02)


def test_bags_are_poisson_by_prompt_and_one_member_sees_all():
    keys = [f"p{k // 2}" for k in range(8000)]
    found = bags(keys, 3, seed=1)
    assert found.shape == (3, 8000) and torch.equal(found[:, ::2], found[:, 1::2])  # by prompt, not by pair
    assert float(found.mean()) == pytest.approx(1, abs=0.03) and float(found.var()) == pytest.approx(1, abs=0.06)
    assert abs(float(torch.corrcoef(found)[0, 1])) < 0.06
    assert torch.equal(found, bags(keys, 3, seed=1)) and not torch.equal(found, bags(keys, 3, seed=2))
    assert torch.equal(bags(keys, 1, seed=1), torch.ones(1, 8000))


def test_accuracy_counts_equal_scores_half_and_leaves_ties_out():
    margin, preference = torch.tensor([1.0, -1.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 0.0, 0.5])
    assert accuracy(margin, preference) == pytest.approx(1.5 / 3)
    assert math.isnan(accuracy(torch.zeros(1), torch.tensor([0.5])))


def linear_votes(count, noise, seed=0, width=30):
    """Pictures are vectors; a hidden direction and noise decide."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(2 * count, width, generator=generator)
    worth = pictures[:, 0] + noise * torch.randn(2 * count, generator=generator)
    pairs = [
        Pair(Prompt(f"p{k}"), str(k), 2 * k, 2 * k + 1, float(worth[2 * k] > worth[2 * k + 1])) for k in range(count)
    ]
    return pairs, lambda row: pictures[row]


def overfitting_run(steps=400, **more):
    """30 numbers from 25 noisy votes: sure to be learned by heart."""
    config = Config(
        steps=steps, batch_size=25, members=2, validate_every=5, patience=6, seed=1,
        optimiser=OptimiserConfig(learning_rate=0.05, ema_decay=0.5), **more,
    )  # fmt: skip
    pairs, pictures = linear_votes(25, noise=1.5)
    held_out, others = linear_votes(400, noise=1.5, seed=5)
    scorer = Linear(30, members=2)
    selection = Selection(begin(scorer.network, config.optimiser))
    batches = PairBatches(pairs, pictures, config.batch_size, config.seed)
    return scorer, batches, PairBatches(held_out, others, 200), config, selection


def test_it_stops_early_and_keeps_the_best():
    scorer, batches, validation, config, selection = overfitting_run()
    records = list(train(scorer, batches, validation, config, selection))
    losses = {r.step: r.values["validation_loss"] for r in records if "validation_loss" in r.values}
    best = min(losses, key=losses.get)
    assert len(records) < 400 and records[-1].step == best + config.patience * config.validate_every
    assert selection.best_step == best and selection.loss == losses[best] < losses[records[-1].step] - 0.01
    assert list(train(scorer, batches, validation, config, selection)) == []  # it stays over
    selection.keep_best()
    from tastemaker.algorithms.reward_model import validate

    assert validate(scorer, validation, config)["validation_loss"] == losses[best]


def table_run():
    """No matrix products, whose rounding may differ from call to call."""
    config = Config(
        steps=40, batch_size=7, members=2, validate_every=5, seed=1,
        optimiser=OptimiserConfig(learning_rate=0.05, ema_decay=0.5, accumulate=2),
    )  # fmt: skip
    scorer, pairs = Table(3, members=2), votes_with_ties()
    selection = Selection(begin(scorer.network, config.optimiser))
    return scorer, PairBatches(pairs, torch.tensor, 7, 1), PairBatches(pairs[::2], torch.tensor, 7), config, selection


def test_going_on_from_a_checkpoint_is_bit_equal():
    whole = table_run()
    expected = list(train(*whole))
    scorer, batches, validation, config, selection = table_run()
    first = list(itertools.islice(train(scorer, batches, validation, config, selection), 17))
    saved = torch.load(_stored(selection), weights_only=True)
    scorer, batches, validation, config, selection = table_run()
    selection.load_state_dict(saved)
    rest = list(train(scorer, batches, validation, config, selection))
    assert [r.values for r in (*first, *rest)] == [r.values for r in expected]
    assert selection.best_step == whole[-1].best_step
    assert all(torch.equal(v, whole[-1].weights[k]) for k, v in selection.weights.items())


def _stored(selection):
    import io

    file = io.BytesIO()
    torch.save(selection.state_dict(), file)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"ties": "dropp"}, "unknown way with ties 'dropp'; nearest known: drop"),
        ({"frozen_share": 1.5}, "frozen_share in"),
        ({"validation_share": 0.6, "test_share": 0.5}, "validation_share"),
        ({"width": 40}, "multiple of 32"),
        ({"members": 0}, "members"),
        ({"simulated_agreement": 0.5}, "simulated_agreement"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, sentence):
    with pytest.raises((TastemakerError, UnknownName), match=sentence):
        Config(**wrong)
