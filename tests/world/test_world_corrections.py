"""Corrections of the world: the check tells which picture is right, and nothing but what is at fault differs."""

import numpy as np
import pytest
import torch

from tastemaker.weights import shipped
from tastemaker.world.check import LABELS, check
from tastemaker.world.corrections import KINDS, WorldCorrections
from tastemaker.world.grammar import TASKS, vocabulary

COUNT = 120


@pytest.fixture(scope="module")
def groups():
    world = WorldCorrections(3)
    return [world.group(k) for k in range(COUNT)]


@pytest.mark.skipif(not shipped(LABELS).is_file(), reason="the shipped weights are not there")
def test_the_check_says_that_good_is_right_and_bad_is_wrong(groups):
    prompts = [g.prompt for g in groups]
    for side, wanted in (("good", True), ("bad", False)):
        images = torch.from_numpy(np.stack([getattr(g, side) for g in groups])).permute(0, 3, 1, 2)
        found = [verdict.correct is wanted for verdict in check(images, prompts, LABELS)]
        assert sum(found) >= 0.95 * COUNT, side


def test_only_what_is_at_fault_differs(groups):
    for group in groups:
        differs = np.abs(group.bad - group.good).max(-1) > 1e-6
        assert differs.any() and group.at_fault.any() and not (differs & ~group.at_fault).any()
        assert group.at_fault.mean() < 0.9


def test_the_reason_names_words_of_the_prompt_that_do_not_hold(groups):
    known = set(vocabulary())
    for group in groups:
        assert group.reason.startswith("not as asked: ")
        words = group.reason.removeprefix("not as asked: ").split(", ")
        assert words and set(words) <= set(group.prompt.text.split()) & known
    assert {g.prompt.spec["tag"] for g in groups} == set(TASKS) == set(KINDS)


def test_everything_follows_from_the_seed_and_the_caption_holds_the_reason():
    world = WorldCorrections(5, 32)
    pictures, caption = world[7]
    again, _ = WorldCorrections(5, 32)[7]
    assert pictures.shape == (3, 3, 32, 32) and torch.equal(pictures, again)
    assert not torch.equal(pictures, WorldCorrections(6, 32)[7][0])
    group = world.group(7)
    reason = group.reason.removeprefix("not as asked: ").replace(",", "")
    assert caption.text == f"{group.prompt.text} {reason}"
    assert set(pictures[2].unique().tolist()) <= {0.0, 1.0}
