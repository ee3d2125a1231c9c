"""The world as data: every item is a pure function of seed and index, the shares are what they say."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from tastemaker.data.batches import Batches
from tastemaker.object_rules import judge
from tastemaker.randomness import mix
from tastemaker.world.dataset import EmojiWorld, clean_world, noisy_world
from tastemaker.world.degrade import KINDS
from tastemaker.world.scenes import compose

COUNT = 1200


@pytest.fixture(scope="module")
def examples():
    world = noisy_world(3, 32)
    return [world.example(k) for k in range(COUNT)]


def test_items_are_pure_functions_of_seed_and_index():
    world = noisy_world(5)
    image, caption = world[123456]
    again, said = noisy_world(5)[123456]
    assert (
        torch.equal(image, again) and caption == said and image.shape == (3, 64, 64) and image.dtype == torch.float32
    )
    assert not torch.equal(image, noisy_world(6)[123456][0]) and not torch.equal(image, world[123457][0])
    assert len(world) == 1_000_000
    small = noisy_world(5, 32)
    assert [small.prompt(k) for k in range(40)] == [small.example(k).caption for k in range(40)]


def test_the_clean_world_says_what_it_shows():
    world = clean_world(1, 32)
    for k in range(200):
        found = world.example(k)
        assert found.caption == found.truth and found.degraded == ""
        scene = compose(found.truth.spec, mix(1, k))
        boxes = {i.name: [j.box for j in scene.items if j.name == i.name] for i in scene.items}
        assert judge(boxes, found.caption.spec).correct


def test_a_quarter_of_the_captions_is_wrong(examples):
    wrong = sum(e.caption.text != e.truth.text for e in examples)
    # another scene may happen to read the same: about 1 in 2000 of those, far inside the interval
    assert stats.binomtest(wrong, COUNT, 0.25).pvalue > 1e-3


def test_half_of_the_wrong_captions_differ_in_one_fact(examples):
    wrong = [e for e in examples if e.caption.text != e.truth.text]

    def near(e):
        a, b = e.caption.spec, e.truth.spec
        if a["tag"] != b["tag"]:
            return False
        changed = [(i, f) for i, (c, d) in enumerate(zip(a["include"], b["include"])) for f in c if c[f] != d.get(f)]
        return len(changed) == 1 or [f for _, f in changed] == ["color", "color"]

    share = sum(map(near, wrong)) / len(wrong)
    assert 0.42 < share < 0.64  # a half, plus other scenes that differ in one fact by chance (two in a hundred)


def test_three_pictures_in_ten_are_degraded_in_four_ways(examples):
    kinds = Counter(e.degraded for e in examples)
    assert stats.binomtest(COUNT - kinds.pop(""), COUNT, 0.30).pvalue > 1e-3
    assert set(kinds) == {k.__name__ for k in KINDS} and stats.chisquare(list(kinds.values())).pvalue > 1e-3


def test_degraded_pictures_and_wrong_captions_are_independent(examples):
    table = Counter((bool(e.degraded), e.caption.text != e.truth.text) for e in examples)
    counts = [[table[a, b] for b in (False, True)] for a in (False, True)]
    assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_shares_of_nothing_and_of_everything():
    none = [EmojiWorld(2, 32).example(k) for k in range(100)]
    full = [EmojiWorld(2, 32, 1.0, 1.0).example(k) for k in range(100)]
    assert not any(e.degraded for e in none) and all(e.degraded for e in full)
    assert sum(e.caption.text != e.truth.text for e in full) >= 98
    assert [e.truth for e in none] == [e.truth for e in full]  # the same scenes, spoiled


def test_batches_of_the_world_are_pure_functions_of_the_step():
    batches = Batches(noisy_world(0, 32), 4, seed=1)
    images, captions = batches.at(7)
    stepped = batches.from_step(6)
    next(stepped)
    again, said = next(stepped)
    assert torch.equal(images, again) and captions == said and np.isfinite(images.numpy()).all()
