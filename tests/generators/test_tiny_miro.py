"""Reward tokens: a fresh one changes nothing, a missing level has a token of its own, guidance by hand, files."""

import pytest
import torch
from small import shaken, tiny_flow

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.reward_targets import (
    balanced_seen,
    good_seen,
    nearest_seen,
    poorest_seen,
    target_vector,
    with_caption_emptied,
    with_caption_kept,
    with_null_condition,
)
from tastemaker.generators.samplers import euler
from tastemaker.generators.tiny_miro import TinyMiro, load_tiny_miro
from tastemaker.generators.told import Scale
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.sampling import sample
from tastemaker.world.grammar import evaluation_prompts

NAN = float("nan")
PROMPTS = evaluation_prompts(1)
SEEN = torch.tensor([[0.0, 0.25], [1.0, 0.0], [0.75, 0.5], [0.5, 1.0], [NAN, 1.0]])
PLAN = Plan(euler, uniform_times(3))


def scale():
    return Scale(("alignment", "sharpness"), 5, ({"reward": "alignment"}, {"reward": "sharpness"}), SEEN)


def tiny_miro(begun=False):
    """With weights everywhere unless just begun."""
    generator = TinyMiro.begun(tiny_flow(), scale(), seed=3)
    if not begun:
        shaken(generator.network, 5, 0.1)
    return generator


@pytest.mark.parametrize("levels", [[0.0, 1.0], [NAN, 0.5], [NAN, NAN]])
def test_a_fresh_network_answers_as_tiny_flow_to_the_last_bit(levels):
    flow, miro = tiny_flow(), tiny_miro(begun=True)
    x, t = torch.randn(6, 3, 16, 16), torch.rand(6)
    words = flow.vocabulary.encode([p.text for p in PROMPTS])
    with torch.no_grad():
        assert torch.equal(flow.network(x, t, words), miro.network(x, t, words, torch.tensor(levels).expand(6, 2)))
    asked = with_caption_kept(Condition.of(PROMPTS), torch.tensor(levels), torch.zeros(2))
    assert torch.equal(flow.velocity(x, t, Condition.of(PROMPTS)), miro.velocity(x, t, asked))


def test_everything_that_is_new_learns_from_the_first_steps_on():
    miro = tiny_miro(begun=True)
    new = [p for n, p in miro.network.named_parameters() if "wish" in n or "gate" in n]
    x, t, words = torch.randn(2, 3, 16, 16), torch.rand(2), torch.ones(2, 12, dtype=torch.int64)
    levels = torch.tensor([[0.2, NAN], [0.9, 0.4]])
    shaken(miro.network.leave, 1, 0.1)  # a network from nothing answers 0, through which nothing is learned
    miro.network(x, t, words, levels).pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in new)
    with torch.no_grad():
        for p in new:
            p.sub_(0.1 * p.grad)
    miro.network.zero_grad()
    miro.network(x, t, words, levels).pow(2).sum().backward()
    tokens = dict(miro.network.rewards.named_parameters())
    assert all(p.grad.abs().sum() > 0 for p in tokens.values())
    assert (
        not tokens["missing"].grad[0].any() and tokens["missing"].grad[1].any()
    )  # no level of sharpness was missing


def test_a_missing_level_is_no_level_and_the_same_in_training_and_inference():
    miro = tiny_miro()
    missing = miro.network.rewards(torch.tensor([[NAN, NAN]]))
    levels = torch.linspace(0, 1, 5)[:, None].expand(5, 2)
    tokens = torch.cat([miro.network.rewards(levels), missing])
    gaps = torch.cdist(tokens.transpose(0, 1), tokens.transpose(0, 1)) + 10 * torch.eye(6)
    assert (gaps > 1e-3).all()
    trained = miro.caption_condition([Prompt("a photo of a cat")]).cache
    asked = miro.prepare(Condition.of(["a photo of a cat"], targets=torch.full((1, 2), NAN))).cache
    assert all(torch.equal(trained[k].nan_to_num(-1), asked[k].nan_to_num(-1)) for k in ("words", "levels"))


def test_guidance_is_v_plus_and_w_times_the_difference():
    miro, w = tiny_miro(), 1.75
    x, t = torch.randn(6, 3, 16, 16), torch.rand(6)
    plus, minus = torch.tensor([1.0, 0.75]), torch.tensor([0.25, NAN])
    for ask, other in ((with_caption_kept, PROMPTS), (with_caption_emptied, [""] * 6)):
        found = miro.guided_velocity(ask(Condition.of(PROMPTS, 1 + w), plus, minus))(x, t)
        v = miro.velocity(x, t, Condition.of(PROMPTS, targets=plus.expand(6, 2)))
        v_other = miro.velocity(x, t, Condition.of(other, targets=minus.expand(6, 2)))
        torch.testing.assert_close(found, v + w * (v - v_other), rtol=1e-5, atol=1e-5)


def test_without_targets_the_models_own_are_asked_and_the_null_condition_asks_nothing():
    miro = tiny_miro()
    assert miro.positive.tolist() == [0.5, 1.0] and miro.negative.tolist() == [0.0, 0.25]
    x, t = torch.randn(6, 3, 16, 16), torch.rand(6)
    asked = with_null_condition(Condition.of(PROMPTS, 3.0), miro.positive, miro.negative)
    assert torch.equal(miro.guided_velocity(Condition.of(PROMPTS, 3.0))(x, t), miro.guided_velocity(asked)(x, t))
    null = miro.prepare(Condition.of(PROMPTS, 3.0, targets=miro.positive.expand(6, 2))).negative
    assert null.cache["levels"].isnan().all() and not null.cache["words"].any()
    said = miro.prepare(Condition.of(PROMPTS, 3.0, negative=Condition.of(["a cat"] * 6)))
    assert said.negative.cache["levels"].isnan().all() and said.cache["levels"][0].tolist() == [0.5, 1.0]
    other = miro.asking(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), with_caption_emptied)
    assert other.network is miro.network
    pictures = [sample(g, PROMPTS, range(6), PLAN) for g in (miro, other)]
    assert (pictures[0] - pictures[1]).abs().max() > 1e-4


def test_image_k_alone_is_image_k_of_a_batch():
    miro = tiny_miro()
    together = sample(miro, PROMPTS, range(6), PLAN)
    torch.testing.assert_close(sample(miro, PROMPTS[4:5], [4], PLAN)[0], together[4], rtol=0, atol=1e-5)


def test_targets_snap_to_levels_that_were_trained():
    cache = tiny_miro().prepare(Condition.of(["a cat"], targets=torch.tensor([[0.6, NAN]]))).cache
    assert cache["levels"][0, 0] == 0.5 and cache["levels"][0, 1].isnan()


def test_feasible_targets_are_those_of_a_picture():
    assert nearest_seen(torch.tensor([1.0, 1.0]), SEEN).tolist() in ([0.5, 1.0], [0.75, 0.5])
    assert nearest_seen(torch.tensor([0.9, NAN]), SEEN).tolist() == [1.0, 0.0]
    assert balanced_seen(SEEN).tolist() == [0.5, 1.0] and poorest_seen(SEEN).tolist() == [0.0, 0.25]
    with pytest.raises(TastemakerError, match="none of 1 training pictures"):
        balanced_seen(SEEN[4:])


def test_a_model_asks_by_itself_for_the_mean_of_good_pictures():
    assert good_seen(SEEN, 0.25).tolist() == balanced_seen(SEEN).tolist()
    assert good_seen(SEEN, 0.5).tolist() == [0.625, 0.75]  # of the two whose lowest level is 0.5
    assert good_seen(SEEN, 1.0).tolist() == [0.5625, 0.4375]
    miro = tiny_miro()
    assert miro.positive.tolist() == miro.scale.snapped(good_seen(miro.scale.seen)).tolist()
    with pytest.raises(TastemakerError, match="none of 1 training pictures"):
        good_seen(SEEN[4:])


def test_bad_targets_are_named():
    rewards = ("alignment", "sharpness")
    assert target_vector({"sharpness": 0.5}, rewards)[1] == 0.5
    with pytest.raises(UnknownName, match="alignmant.*alignment"):
        target_vector({"alignmant": 0.5}, rewards)
    with pytest.raises(TastemakerError, match=r"got 1.5 for 'sharpness'"):
        target_vector({"sharpness": 1.5}, rewards)
    miro = tiny_miro()
    with pytest.raises(TastemakerError, match="expected 2 targets"):
        miro.prepare(Condition.of(["a cat"], targets=torch.zeros(1, 3)))
    with pytest.raises(TastemakerError, match="got -0.5 for 'alignment'"):
        miro.asking(torch.tensor([-0.5, 0.0]), torch.zeros(2))


def test_a_saved_model_draws_the_same(tmp_path):
    miro = tiny_miro()
    miro.guidance = 2.5
    miro.save(tmp_path)
    again = load_tiny_miro(tmp_path)
    assert (
        again.rewards == miro.rewards
        and again.guidance == 2.5
        and list(again.scale.described) == list(miro.scale.described)
    )
    torch.testing.assert_close(again.scale.seen, SEEN, equal_nan=True)
    assert torch.equal(sample(again, PROMPTS, range(6), PLAN), sample(miro, PROMPTS, range(6), PLAN))
    with pytest.raises(TastemakerError, match="expected 'tiny-miro'"):
        tiny_flow().save(tmp_path)
        load_tiny_miro(tmp_path)
