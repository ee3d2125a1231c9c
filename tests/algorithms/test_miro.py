"""MIRO's loop: what is dropped and how often, filtering and weights by hand, scores that stay with their captions."""

import math

import pytest
import torch
from small import tiny_flow

from tastemaker.algorithms import miro
from tastemaker.algorithms.miro import (
    Config,
    Labelled,
    caption_kind,
    conditions,
    filtered_rows,
    loss_weights,
    mean_level,
    reward_drop,
)
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.generators.tiny_miro import TinyMiro
from tastemaker.generators.told import Scale
from tastemaker.records import Prompt

NAN = float("nan")
LEVELS = torch.tensor([[[0.0, 0.5], [1.0, 1.0], [NAN, 0.75], [NAN, NAN], [0.25, 0.25]]])  # (1, 5, 2)


class Pictures:
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((3, 16, 16), index / 8), Prompt("unused")


def labelled(batch_size=4, levels=None):
    """Of row i the kinds' captions are `a photo of a cat` and `... dog`, its levels i / 8 and 1 - i / 8."""
    rows = torch.arange(8) / 8
    levels = torch.stack([torch.stack([rows, rows], 1), torch.stack([1 - rows, 1 - rows], 1)])
    captions = [["a photo of a cat"] * 8, ["a photo of a dog"] * 8]
    return Labelled(Batches(Pictures(), batch_size, 0), captions, levels, torch.ones(2, 8))


def generator():
    flow = tiny_flow()
    flow.decoder.requires_grad_(False)
    return TinyMiro.begun(flow, Scale(("a", "b"), 9, (), torch.zeros(1, 2)))


def test_each_level_is_dropped_as_often_as_it_is_asked():
    drops = torch.cat([reward_drop(5, step, 200, 3, 0.2, 0.1) for step in range(50)]).float()
    assert drops.mean(0) == pytest.approx([1 - 0.8 * 0.9] * 3, abs=0.02)
    assert drops.prod(1).mean() == pytest.approx(0.1 + 0.9 * 0.2**3, abs=0.015)
    first_two = drops[:, 0] * drops[:, 1]
    assert first_two.mean() == pytest.approx(0.1 + 0.9 * 0.2**2, abs=0.015)  # apart from `all`, by itself each
    assert not reward_drop(5, 1, 99, 3, 0.0, 0.0).any() and reward_drop(5, 1, 99, 3, 1.0, 0.0).all()
    assert torch.equal(reward_drop(5, 1, 9, 3, 0.5, 0.1), reward_drop(5, 1, 9, 3, 0.5, 0.1))
    kinds = torch.cat([caption_kind(5, step, 200, 0.3) for step in range(50)])
    assert kinds.float().mean() == pytest.approx(0.3, abs=0.02) and set(kinds.tolist()) == {0, 1}


def test_half_of_the_dropped_captions_take_their_levels_with_them():
    data, made = labelled(), generator()
    config = Config(caption_dropout=0.5, reward_dropout=0.0, all_rewards_dropout=0.0)
    caches = [conditions(made, data, config, step, 4)[0].cache for step in range(250)]
    silent = torch.cat([~c["words"].any(1) for c in caches])
    bare = torch.cat([c["levels"].isnan().all(1) for c in caches])
    assert silent.float().mean() == pytest.approx(0.5, abs=0.06) and not (bare & ~silent).any()
    assert bare[silent].float().mean() == pytest.approx(0.5, abs=0.08)


def test_filtering_keeps_the_best_by_mean_level_and_never_one_without_scores():
    assert mean_level(LEVELS)[0].nan_to_num(-1).tolist() == [0.25, 1.0, 0.75, -1, 0.25]
    assert filtered_rows(LEVELS, 0.5).tolist() == [1, 2]  # of four that have a score
    assert filtered_rows(LEVELS, 1.0).tolist() == [0, 1, 2, 4]
    two = torch.stack([LEVELS[0], torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [NAN, NAN], [0.0, 0.0]])])
    assert filtered_rows(two, 0.25).tolist() == [0]  # 0.625 over both kinds of captions
    with pytest.raises(TastemakerError, match="none of 2 pictures"):
        filtered_rows(torch.full((1, 2, 1), NAN), 0.5)


def test_weights_are_exponential_with_mean_one():
    weights = loss_weights(LEVELS, 0.5)
    raw = [math.exp(m / 0.5) for m in (0.25, 1.0, 0.75, 0.25)]
    assert weights[0, [0, 1, 2, 4]].tolist() == pytest.approx([4 * r / sum(raw) for r in raw], rel=1e-5)
    assert weights[0, 3] == 0 and loss_weights(LEVELS, 0.0).tolist() == [[1.0] * 5]


def test_a_score_stays_with_the_caption_it_was_made_for():
    data, made = labelled(), generator()
    config = Config(synthetic=0.5, caption_dropout=0.0, reward_dropout=0.0, all_rewards_dropout=0.0)
    seen = set()
    for step in range(12):
        condition, _ = conditions(made, data, config, step, 4)
        rows = torch.tensor(data.batches.indices(step)) / 8
        dogs = torch.tensor(["dog" in p.text for p in condition.prompts])
        assert torch.equal(condition.cache["levels"][:, 0], torch.where(dogs, 1 - rows, rows))
        seen |= set(dogs.tolist())
    assert seen == {True, False}
    only = conditions(made, data, Config(synthetic=1.0, caption_dropout=0.0), 0, 4)[0]
    assert all("dog" in p.text for p in only.prompts)


def test_the_loss_of_the_loop_is_the_weighted_loss_of_its_conditions():
    data, made = labelled(), generator()
    weights = torch.arange(16.0).reshape(2, 8)
    data = Labelled(data.batches, data.captions, data.levels, weights)
    config = Config(steps=1, batch_size=4, compile=False, optimiser=OptimiserConfig(1e-3))
    condition, w = conditions(made, data, config, 0, 4)
    assert torch.equal(w, weights[0, data.batches.indices(0)])
    images, _ = next(data.batches.from_step(0))
    seeds = miro.draw_seeds(0, 0, 4)
    x1 = made.codec.encode(images, seeds)
    expected = (w * made.loss(x1, condition, made.draw(x1, seeds))).mean()
    (record,) = miro.train(made, data, config, begin(made.parts, config.optimiser))
    assert record.values["loss"] == pytest.approx(float(expected.detach()), rel=1e-6)
    assert "codec_loss" not in record.values


def test_told_levels_are_learned():
    """Pictures are as bright as their level; afterwards what is asked is what is drawn."""
    data, made = labelled(8), generator()
    config = Config(
        steps=80, batch_size=8, compile=False, caption_dropout=0.0, optimiser=OptimiserConfig(5e-3, muon_scale=0)
    )
    losses = [r.values["loss"] for r in miro.train(made, data, config, begin(made.parts, config.optimiser))]
    assert sum(losses[-10:]) < sum(losses[:10])
    x, t = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.05)
    captions = [Prompt("a photo of a cat")] * 4
    levels = torch.tensor([[0.0, 0.0], [0.3, 0.3], [0.6, 0.6], [0.9, 0.9]])
    with torch.no_grad():
        condition = made.caption_condition(captions, None, levels)
        drawn = (x + 0.95 * made.velocity(x, t, condition)).mean((1, 2, 3)) / 2 + 0.5
    assert (drawn.diff() > 0.05).all(), drawn


@pytest.mark.parametrize(
    "wrong",
    [{"keep_share": 0}, {"synthetic": 1.5}, {"reward_dropout": -0.1}, {"bins": 1}, {"weight_temperature": -1}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(TastemakerError, match=next(iter(wrong))):
        Config(**wrong)
