"""The shipped checks, measured: right on clean scenes, hard to fool with captions of one changed fact."""

import numpy as np
import pytest
import torch

from tastemaker.errors import TastemakerError
from tastemaker.object_rules import judge
from tastemaker.records import Prompt
from tastemaker.weights import shipped
from tastemaker.world.check import LABELS, RATERS, SCORES, Alignment, FactCheck, WorldCheck, check, detector
from tastemaker.world.degrade import KINDS
from tastemaker.world.grammar import TASKS, prompt_of, spec_of, swapped
from tastemaker.world.scenes import compose, draw

COUNT = 240
SEEDS = [90_000_000 + k for k in range(COUNT)]  # detectors were trained on hashed seeds, never on these


def pictures(seeds, spoil=None):
    drawn = [draw(compose(spec_of(s), s)) for s in seeds]
    drawn = [spoil(p, np.random.default_rng(s)) for p, s in zip(drawn, seeds)] if spoil else drawn
    return torch.stack([torch.from_numpy(np.ascontiguousarray(p)) for p in drawn]).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def clean():
    return pictures(SEEDS), [prompt_of(spec_of(s)) for s in SEEDS], [prompt_of(swapped(spec_of(s), s)) for s in SEEDS]


@pytest.mark.parametrize("name", [LABELS, SCORES])
def test_clean_scenes_are_accepted_and_swapped_captions_are_not(name, clean):
    images, true, false = clean
    found = detector(name).detect(images)
    missed = [p.text for p, boxes in zip(true, found) if not judge(boxes, p.spec).correct]
    fooled = [p.text for p, boxes in zip(false, found) if judge(boxes, p.spec).correct]
    # 0.995 is promised, and then 3 or fewer of 240 are missed in 97 of 100 samples; these are fixed ones
    assert len(missed) <= 2, missed
    assert len(fooled) <= 3, fooled
    assert {p.spec["tag"] for p in true} == set(TASKS)


@pytest.mark.parametrize("spoil", KINDS)
def test_most_degraded_scenes_are_still_read(spoil):
    seeds = SEEDS[:50]
    right = WorldCheck().score(pictures(seeds, spoil), [prompt_of(spec_of(s)) for s in seeds])
    assert right.mean() >= 0.8


def test_the_detectors_are_three_different_networks():
    names = (LABELS, SCORES, RATERS)
    present = [n for n in names if shipped(n).is_file()]
    hashes = {WorldCheck(n).provenance.weight_hash for n in present}
    assert len(hashes) == len(present) >= 2
    assert WorldCheck(LABELS).name == "check-a" and WorldCheck().name == "check-b"
    assert not WorldCheck().differentiable and not any(p.requires_grad for p in detector().network.parameters())


def test_verdicts_do_not_depend_on_the_batch(clean):
    images, true, false = clean
    mixed = [t if k % 2 else f for k, (t, f) in enumerate(zip(true, false))][:20]
    whole = check(images[:20], mixed)
    assert whole == check(images[:20], mixed, batch=3)
    assert [v.correct for v in whole] == [
        v.correct for k in range(20) for v in check(images[k : k + 1], mixed[k : k + 1])
    ]
    assert check(images[:0], []) == []


def test_all_facts_hold_where_the_check_says_so(clean):
    images, true, false = clean
    for prompts in (true, false):
        shares, right = FactCheck().score(images, prompts), WorldCheck(LABELS).score(images, prompts)
        assert torch.equal(shares == 1, right == 1) and shares.min() >= 0
    assert 0.3 < shares[shares < 1].mean() < 0.9  # of captions of one changed fact much holds
    assert FactCheck().name == "facts-a"


@pytest.mark.skipif(not shipped(RATERS).is_file(), reason="the shipped weights are not there")
def test_alignment_is_the_share_of_clauses(clean):
    images, true, false = clean
    values = Alignment().score(images[:60], true[:60])
    assert values.mean() > 0.97 and set(values.tolist()) <= {0.0, 0.5, 1.0}
    assert Alignment().score(images[:60], false[:60]).mean() < 0.6


def test_a_prompt_without_a_spec_is_named(clean):
    with pytest.raises(TastemakerError, match="'a cat' has no spec to check; read prompts from a GenEval metadata"):
        check(clean[0][:1], [Prompt("a cat")])
