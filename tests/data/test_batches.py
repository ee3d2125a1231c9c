"""Batches are a pure function of (seed, step), whoever fetches them."""

import os
from dataclasses import dataclass

import pytest
import torch

from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt


@dataclass(frozen=True)
class Numbers:
    size: int
    bad: int = -1

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if i == self.bad:
            raise TastemakerError(f"picture {i}.png cannot be read")
        return torch.full((3, 2, 2), float(i)), Prompt(str(i))


class Groups(Numbers):
    """Pictures that say in which group of processes they were read."""

    def __getitem__(self, i):
        return torch.full((3, 2, 2), float(os.getpgrp())), Prompt(str(i))


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize("size, batch", [(10, 4), (3, 8), (8, 8), (1, 2)])
def test_every_epoch_shows_each_picture_once(size, batch):
    batches = Batches(Numbers(size), batch, seed=3)
    seen = [i for step in range(5 * size) for i in batches.indices(step)]
    epochs = [seen[k : k + size] for k in range(0, len(seen), size)]
    assert all(sorted(e) == list(range(size)) for e in epochs)
    assert size < 5 or len({tuple(e) for e in epochs}) > 1


def test_a_step_depends_on_seed_and_step_alone():
    batches = Batches(Numbers(50), 8, seed=1)
    images, prompts = batches.at(17)
    assert images.shape == (8, 3, 2, 2) and [p.text for p in prompts] == [str(int(v)) for v in images[:, 0, 0, 0]]
    batches.at(2)
    assert torch.equal(batches.at(17)[0], images) and Batches(Numbers(50), 8, seed=1).at(17)[1] == prompts
    assert Batches(Numbers(50), 8, seed=2).at(17)[1] != prompts


def test_any_number_of_workers_gives_the_same_and_resume_is_starting_at_the_step():
    batches = Batches(Numbers(11), 4, seed=0)
    expected = [batches.at(step) for step in range(3, 9)]
    for workers in (0, 1, 2):
        got = take(batches.from_step(3, workers), 6)
        assert all(torch.equal(a, c) and b == d for (a, b), (c, d) in zip(got, expected)), workers


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    take(Batches(Numbers(5), 2).from_step(0, workers=1), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_is_named_in_one_sentence_at_its_step(workers):
    batches = Batches(Numbers(6, bad=4), 3, seed=0)
    iterator = batches.from_step(0, workers)
    with pytest.raises(TastemakerError) as error:
        take(iterator, 2)
    assert str(error.value) == "picture 4.png cannot be read"


def test_mistakes():
    with pytest.raises(TastemakerError, match="at least 1"):
        Batches(Numbers(0), 3)
    with pytest.raises(TastemakerError, match="at least 1"):
        Batches(Numbers(3), 0)
    with pytest.raises(TastemakerError, match="at least 0"):
        Batches(Numbers(3), 1).at(-1)


@pytest.mark.skipif(not hasattr(os, "getpgrp"), reason="groups of processes are POSIX's")
def test_what_ends_a_group_of_processes_does_not_reach_the_workers():
    images, _ = next(Batches(Groups(4), 2).from_step(0, workers=1))
    assert not (images == os.getpgrp()).any()
