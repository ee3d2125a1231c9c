"""Dataset filtering: which pictures are kept, against a search by hand, and that they are what is learned."""

import math

import pytest
import torch
from small import tiny_flow
from torch.utils.data import Subset

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.pretrain import draw_seeds, flow_matching
from tastemaker.algorithms.rollout import prompt_sets
from tastemaker.algorithms.sft import Config, together, top_share, train
from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.randomness import mix
from tastemaker.records import Prompt
from tastemaker.world.dataset import clean_world

NAN = math.nan


def test_pictures_of_one_prompt_are_a_set_and_those_alone_are_one():
    sets = prompt_sets([Prompt(t) for t in ("cat", "dog", "cat", "key", "bird")])
    assert sets.tolist() == [0, 1, 0, 2, 3]
    assert together(sets).tolist() == [0, -1, 0, -1, -1]


@pytest.mark.parametrize(
    "scores, sets, share, kept",
    [
        ([3, 1, 2, 9], [0, 0, 0, 1], 0.3, [0, 3]),  # at least one of each set
        ([3, 1, 2, 9], [0, 0, 0, 1], 0.5, [0, 2, 3]),  # rounded up
        ([3, 1, 2, 9], [0, 0, 0, 1], 1.0, [0, 1, 2, 3]),
        ([5, 5, 5, 5], [0, 0, 0, 0], 0.5, [0, 1]),  # the first of equals
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0] * 10, 0.3, [7, 8, 9]),  # 0.3 of 10 is 3, whatever rounding says
        ([NAN, 1, 2, NAN], [0, 0, 0, 1], 0.5, [2]),  # missing ones are not kept and do not count
    ],
)
def test_the_top_share_of_each_set(scores, sets, share, kept):
    assert top_share(torch.tensor(scores, dtype=torch.float32), torch.tensor(sets), share).tolist() == kept


def test_the_top_share_against_sorting_by_hand():
    generator = torch.Generator().manual_seed(0)
    scores, sets = torch.randn(200, generator=generator), torch.randint(7, (200,), generator=generator)
    kept = set(top_share(scores, sets, 0.25).tolist())
    for one in range(7):
        rows = [i for i in range(200) if sets[i] == one]
        wanted = sorted(rows, key=lambda i: -float(scores[i]))[: math.ceil(len(rows) / 4)]
        assert kept & set(rows) == set(wanted)


def test_without_any_score_nothing_can_be_kept():
    with pytest.raises(TastemakerError, match="none of 2 pictures has a score"):
        top_share(torch.tensor([NAN, NAN]), torch.tensor([0, 1]), 0.5)
    with pytest.raises(TastemakerError, match=r"a share in \(0, 1\]"):
        Config(share=0.0)


def run(rows, steps=2, before=None, **settings):
    generator, world = tiny_flow(), clean_world(0, 16)
    config = Config(steps=steps, batch_size=4, optimiser=OptimiserConfig(1e-3), **settings)
    state = begin(generator.network, config.optimiser)
    kept = Batches(Subset(world, rows), 4, 0)
    return generator, list(train(generator, kept, before, config, state))


def test_the_loss_is_the_pretraining_loss_of_the_kept_pictures():
    generator, (record, *_) = run([3, 5, 8, 9], steps=1)
    images, captions = Batches(Subset(clean_world(0, 16), [3, 5, 8, 9]), 4, 0).at(0)
    fresh = tiny_flow()
    seeds = draw_seeds(mix(0, 1), 0, 4)
    expected = flow_matching(fresh, images, fresh.caption_condition(captions), seeds).mean()
    assert record.values["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert any(not torch.equal(p, q) for p, q in zip(generator.network.parameters(), fresh.network.parameters()))


def test_the_kept_pictures_are_learned():
    _, records = run([3, 5, 8, 9], steps=60)
    losses = [r.values["kept_loss"] for r in records]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_the_data_before_can_be_mixed_in():
    world = Batches(clean_world(1, 16), 4)
    _, (mixed, *_) = run([3, 5], steps=1, before=world, pretraining_weight=0.5)
    _, (alone, *_) = run([3, 5], steps=1, before=world)
    values = mixed.values
    assert values["loss"] == pytest.approx(values["kept_loss"] + 0.5 * values["pretraining_loss"], rel=1e-5)
    assert "pretraining_loss" not in alone.values and alone.values["loss"] == pytest.approx(values["kept_loss"])
