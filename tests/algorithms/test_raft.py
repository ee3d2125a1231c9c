"""RAFT: exactly the best of each prompt is kept, rounds draw anew, and what a resume needs is in the state."""

import io
import math

import pytest
import torch
from small import tiny_flow

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.raft import Config, Kept, best_of, best_pictures, round_of, train
from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler
from tastemaker.protocols import Plan
from tastemaker.records import Prompt, Provenance

PROMPTS = [Prompt(f"a photo of {what}") for what in ("a cat", "two dogs", "a red key", "a chair", "an umbrella")]
NAN = math.nan


class Bright:
    """Remembers every picture that it scored. No score for dogs where told so."""

    name, differentiable, range, provenance = "bright", False, (0.0, 1.0), Provenance("bright")

    def __init__(self, without=""):
        self.without, self.seen = without, []

    def score(self, images, prompts):
        scores = images.mean((1, 2, 3))
        if self.without:
            scores = torch.where(torch.tensor([self.without in p.text for p in prompts]), NAN, scores)
        self.seen += [(p.text, float(s), x) for p, s, x in zip(prompts, scores, images)]
        return scores


def small_flow():
    generator = tiny_flow()
    generator.plan = Plan(euler, uniform_times(3))
    return generator


def small(**settings):
    values = {"rounds": 2, "steps": 4, "batch_size": 3, "drawn_prompts": 4, "per_prompt": 3}
    return Config(**{**values, "optimiser": OptimiserConfig(1e-3, ema_decay=0.5), **settings})


def test_the_best_of_each_prompt():
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 1.0], [NAN, -2.0, NAN], [NAN, NAN, NAN]])
    assert best_of(scores).tolist() == [1, 0, 1, -1]


def test_exactly_the_best_own_picture_of_each_drawn_prompt_is_kept():
    reward = Bright()
    kept = best_pictures(small_flow(), reward, PROMPTS, small(), 0)
    texts = [p.text for p in kept.prompts]
    assert len(texts) == len(set(texts)) == 4  # without replacement
    assert len(reward.seen) == 4 * 3
    for image, prompt, score in zip(kept.images, kept.prompts, kept.scores):
        own = [(s, x) for text, s, x in reward.seen if text == prompt.text]
        best, picture = max(own, key=lambda pair: pair[0])
        assert len(own) == 3 and float(score) == pytest.approx(best)
        assert (picture * 255).round().to(torch.uint8).equal(image)


def test_a_prompt_without_a_score_is_left_out_and_none_at_all_is_an_error():
    kept = best_pictures(small_flow(), Bright("dog"), PROMPTS, small(drawn_prompts=9), 0)
    assert sorted(p.text for p in kept.prompts) == sorted(p.text for p in PROMPTS if "dog" not in p.text)
    with pytest.raises(TastemakerError, match="gave no score for any picture of round 1: nothing to keep"):
        best_pictures(small_flow(), Bright("photo"), PROMPTS, small(), 0)


@pytest.mark.parametrize("rounds, steps", [(1, 5), (2, 4), (3, 10), (4, 4)])
def test_rounds_are_about_equally_long_and_all_there(rounds, steps):
    config = small(rounds=rounds, steps=steps)
    found = [round_of(k, config) for k in range(steps)]
    lengths = [found.count(r) for r in range(rounds)]
    assert found == sorted(found) and max(lengths) - min(lengths) <= 1 and sum(lengths) == steps


def run(config, kept=None, generator=None, state=None, reward=None):
    generator = generator or small_flow()
    state = state or begin(generator.network, config.optimiser)
    kept = kept or Kept()
    return generator, state, kept, train(generator, reward or Bright(), PROMPTS, None, config, state, kept)


def test_each_round_draws_once_with_the_weights_of_by_then():
    reward = Bright()
    _, _, _, records = run(small(), reward=reward)
    drawn = []
    found = []
    for record in records:
        found.append(record)
        drawn.append(len(reward.seen))
    assert drawn == [12, 12, 24, 24] and [r.values["round"] for r in found] == [1, 1, 2, 2]
    assert ["kept_reward" in r.values for r in found] == [True, False, True, False]
    first, second = ({text for text, *_ in part} for part in (reward.seen[:12], reward.seen[12:]))
    assert len(first) == len(second) == 4


def test_a_cut_inside_a_round_goes_on_bit_equal():
    config = small(rounds=2, steps=6)
    whole, *_, records = run(config)
    losses = [r.values["loss"] for r in records]

    generator, state, kept, records = run(config)
    cut = [next(records).values["loss"] for _ in range(4)]  # one step into the second round
    file = io.BytesIO()
    torch.save({"state": state.state_dict(), "kept": kept.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh, again, fresh_kept, _ = run(config)
    again.load_state_dict(saved["state"])
    fresh_kept.load_state_dict(saved["kept"])
    reward = Bright()
    rest = [r.values["loss"] for r in train(fresh, reward, PROMPTS, None, config, again, fresh_kept)]
    assert cut + rest == losses and reward.seen == []  # nothing was drawn again
    for p, q in zip(whole.network.parameters(), fresh.network.parameters()):
        assert torch.equal(p, q)


def test_an_empty_state_is_as_new():
    kept = Kept()
    kept.load_state_dict(Kept().state_dict())
    assert kept.pictures is None and kept.round == -1


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(TastemakerError, match="rounds of at least 1 and at most steps"):
        small(rounds=5, steps=4)
    with pytest.raises(TastemakerError, match="drawn_prompts and per_prompt of at least 1"):
        small(per_prompt=0)
    with pytest.raises(TastemakerError, match="no prompts"):
        next(train(small_flow(), Bright(), [], None, small(), begin(small_flow().network, OptimiserConfig()), Kept()))
