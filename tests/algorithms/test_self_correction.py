"""Self-correction: which tokens are at fault, what is masked, the loss by hand, and that training sets it right."""

import math

import pytest
import torch
from small import tiny_flow, tiny_masked

from tastemaker.algorithms import self_correction
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.self_correction import (
    correction_loss,
    dropped,
    fault_draw,
    tokens_at_fault,
    train,
)
from tastemaker.data.batches import Batches
from tastemaker.errors import NotDifferentiable, TastemakerError
from tastemaker.generators.unmasking import MASK
from tastemaker.protocols import Condition
from tastemaker.records import Prompt
from tastemaker.world.corrections import WorldCorrections

PROMPTS = ["a photo of a cat", "a photo of two dogs dogs"]


def test_a_token_is_at_fault_where_a_fault_touches_it():
    said = torch.zeros(4, 8, 8)
    said[0, 0, 3] = 1  # one pixel, of the second token of the first row
    said[1] = torch.nan  # nobody said: where the tokens differ
    bad, good = torch.zeros(4, 16, dtype=torch.int64), torch.zeros(4, 16, dtype=torch.int64)
    good[1, [2, 9]] = 5
    good[2, 7] = 1  # nothing is said to be at fault, and one differs
    found = tokens_at_fault(said, bad, good)
    assert [row.nonzero()[:, 0].tolist() for row in found[:3]] == [[1], [2, 9], [7]]
    assert found[3].all()  # nothing said and nothing different
    with pytest.raises(TastemakerError, match="a square of tokens, got 15"):
        tokens_at_fault(said, bad[:, :15], good[:, :15])


def test_masks_lie_inside_of_the_fault_and_are_spread_as_the_cosine_says():
    at_fault = torch.zeros(2000, 16, dtype=torch.bool)
    at_fault[:, 4:12] = True
    draw = fault_draw(at_fault, torch.arange(2000))
    assert not (draw.noise & ~at_fault).any() and (draw.noise.sum(1) >= 1).all()
    assert float(draw.noise.float().sum(1).mean() / 8) == pytest.approx(2 / math.pi, abs=0.02)
    assert draw.noise[:, 4:12].float().mean(0).std() < 0.02
    torch.testing.assert_close(draw.time, 1 - draw.noise.float().mean(1))
    assert torch.equal(fault_draw(at_fault[:3], torch.arange(3)).noise, draw.noise[:3])
    one = torch.zeros(1, 16, dtype=torch.bool)
    one[0, 3] = True
    assert all(fault_draw(one, torch.tensor([seed])).noise[0, 3] for seed in range(20))


def test_the_loss_is_that_of_the_good_tokens_among_the_bad_ones_that_are_kept():
    generator, numbers = tiny_masked(), torch.Generator().manual_seed(0)
    bad, good = (torch.randint(64, (2, 16), generator=numbers) for _ in range(2))
    at_fault = torch.rand(2, 16, generator=numbers) < 0.5
    draw, condition = fault_draw(at_fault, torch.tensor([3, 4])), Condition.of(PROMPTS)
    loss = correction_loss(generator, bad, good, at_fault, condition, draw)
    assert (draw.noise.sum(1) < at_fault.sum(1)).any()  # some good tokens are known
    for k in range(2):
        seen = [MASK if draw.noise[k, i] else int((good if at_fault[k, i] else bad)[k, i]) for i in range(16)]
        log_p = generator.logits(torch.tensor([seen]), Condition.of([PROMPTS[k]]))[0].log_softmax(-1)
        expected = -log_p[draw.noise[k], good[k, draw.noise[k]]].mean()
        torch.testing.assert_close(loss[k], expected, rtol=1e-4, atol=1e-5)


def test_dropped_captions_ask_for_nothing():
    captions = [Prompt("a cat"), Prompt("a dog")]
    assert dropped(captions, torch.tensor([True, False])) == [Prompt(""), Prompt("a dog")]


def held_out_loss(generator, groups):
    pictures, captions = Batches(groups, 32, seed=5).at(0)
    bad, good = (generator.codec.encode(side, torch.arange(32)) for side in (pictures[:, 0], pictures[:, 1]))
    at_fault = tokens_at_fault(pictures[:, 2, 0], bad, good)
    with torch.no_grad():
        condition = generator.caption_condition(captions)
        return float(
            correction_loss(generator, bad, good, at_fault, condition, fault_draw(at_fault, torch.arange(32))).mean()
        )


def test_what_was_never_seen_is_set_right_more_likely_after_training():
    generator = tiny_masked(scale=0.0)
    seen, unseen = WorldCorrections(0, 16), WorldCorrections(1, 16)
    before = held_out_loss(generator, unseen)
    assert before == pytest.approx(math.log(64), abs=1e-4)  # all codes alike: the head begins at 0
    config = self_correction.Config(steps=60, batch_size=16, pretraining_weight=0.0)
    state = begin(generator.network, OptimiserConfig(learning_rate=3e-3))
    records = list(train(generator, Batches(seen, 16), None, config, state))
    assert len(records) == 60 and 0 < records[0].values["at_fault"] < 1
    assert held_out_loss(generator, unseen) < 0.8 * before


def test_only_masked_tokens_can_be_set_right():
    config = self_correction.Config(steps=1)
    with pytest.raises(NotDifferentiable, match="use `train dpo` for flow"):
        next(train(tiny_flow(), Batches(WorldCorrections(0, 16), 2), None, config, None))
    with pytest.raises(TastemakerError, match=r"caption_dropout in \[0, 1\]"):
        self_correction.Config(caption_dropout=2)
