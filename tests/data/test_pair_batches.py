"""Batches of pairs: every pair once an epoch, each picture once a batch, a pure function of (seed, step)."""

from collections import Counter
from itertools import combinations

import pytest
import torch

from tastemaker.data.pair_batches import PairBatches, batch_of, shuffled_pairs, shuffled_prompts
from tastemaker.data.pairs import Pair
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt


def pairs_of(prompts=4, pictures=4):
    return [
        Pair(Prompt(f"prompt {k}"), str(k), f"{k}-{i}", f"{k}-{j}", float(i < j), weight=1.0 + k)
        for k in range(prompts)
        for i, j in combinations(range(pictures), 2)
    ]


def picture(name):
    k, i = map(int, str(name).split("-"))
    return torch.full((3, 2, 2), k + i / 10)


def named(batch):
    """What a batch says, as (picture a, picture b, prompt) by value."""
    values = batch.pictures[:, 0, 0, 0]
    return [(float(values[a]), float(values[b]), batch.prompts[a].text) for a, b in zip(batch.a, batch.b)]


@pytest.mark.parametrize("order", [shuffled_pairs, shuffled_prompts])
def test_every_pair_comes_once_an_epoch(order):
    pairs = pairs_of()  # 24 pairs
    batches = PairBatches(pairs, picture, 5, seed=3, order=order)
    seen = [row for step in range(24) for row in named(batches.at(step))]  # 5 epochs
    expected = named(batch_of(pairs, picture))
    for epoch in range(5):
        assert Counter(seen[24 * epoch : 24 * (epoch + 1)]) == Counter(expected)
    assert seen[:24] != seen[24:48]
    again = PairBatches(pairs, picture, 5, seed=3, order=order)
    assert named(again.at(7)) == named(batches.at(7)) != named(PairBatches(pairs, picture, 5, 4, order).at(7))
    stream = again.from_step(6)
    assert [named(next(stream)), named(next(stream))] == [named(batches.at(6)), named(batches.at(7))]


def test_prompts_stay_together_and_each_picture_is_read_once():
    batches = PairBatches(pairs_of(6, 5), picture, 20, order=shuffled_prompts)  # 10 pairs a prompt
    batch = batches.at(0)
    assert len(set(batch.prompt_keys)) == 2 and len(batch.pictures) == len(batch.prompts) == 10
    assert batch.weight.tolist() == [1.0 + int(key[-1]) for key in batch.prompt_keys]


def test_one_picture_with_two_prompts_is_two_rows():
    one = Pair(Prompt("a cat"), "1", "0-1", "0-2", 1.0)
    two = Pair(Prompt("a dog"), "2", "0-1", "0-2", 0.0)
    batch = batch_of([one, two], picture)
    assert len(batch.pictures) == 4 and [p.text for p in batch.prompts] == ["a cat", "a cat", "a dog", "a dog"]
    assert batch.preference.tolist() == [1.0, 0.0] and len(batch) == 2


def test_validation_takes_every_pair_in_order():
    pairs = pairs_of(3)
    rows = [row for batch in PairBatches(pairs, picture, 7).once() for row in named(batch)]
    assert rows == named(batch_of(pairs, picture))


def test_no_pairs_is_an_error():
    with pytest.raises(TastemakerError, match="expected pairs"):
        PairBatches([], picture, 4)
