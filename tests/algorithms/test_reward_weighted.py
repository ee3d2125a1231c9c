"""Reward-weighted regression: the weights in closed form, the weighted gradient, missing rewards."""

import math

import pytest
import torch
from small import tiny_flow

from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.reward_weighted import Config, exponential_weights, minmax_weights, objective, train
from tastemaker.algorithms.rollout import ScoredPictures, draw_scored
from tastemaker.data.batches import Batches
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt, Provenance
from tastemaker.sampling import sample
from tastemaker.world.dataset import clean_world

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]
NAN = math.nan


class Bright:
    name, differentiable, range, provenance = "bright", False, (0.0, 1.0), Provenance("bright")

    def score(self, images, prompts):
        return images.mean((1, 2, 3))


def test_exponential_weights_in_closed_form():
    r = torch.tensor([0.0, 1.0, 2.0])
    weights = exponential_weights(r, beta=0.5)
    powers = [1, math.e**2, math.e**4]
    assert weights.tolist() == pytest.approx([3 * p / sum(powers) for p in powers], rel=1e-5)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert exponential_weights(r + 5, 0.5).tolist() == pytest.approx(weights.tolist(), rel=1e-4)  # only gaps count
    assert exponential_weights(r * 1000, 0.1).tolist() == [0, 0, 3]  # no overflow


def test_each_set_has_mean_1_and_a_missing_reward_weighs_nothing():
    r, sets = torch.tensor([0.0, 1.0, NAN, 7.0, 7.0, NAN]), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = exponential_weights(r, 1.0, sets)
    assert weights[:2].mean() == pytest.approx(1.0) and float(weights[1] / weights[0]) == pytest.approx(math.e)
    assert weights[2:].tolist() == [0, 1, 1, 0]
    with pytest.raises(TastemakerError, match="none of 1 pictures has a reward"):
        exponential_weights(torch.tensor([NAN]), 1.0)


def test_minmax_weights():
    assert minmax_weights(torch.tensor([2.0, 4.0, NAN, 3.0])).tolist() == [0.0, 1.0, 0.0, 0.5]
    assert minmax_weights(torch.tensor([2.0, 2.0, NAN])).tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(TastemakerError, match="none of 2 pictures"):
        minmax_weights(torch.tensor([NAN, NAN]))


def test_the_objective():
    losses = torch.tensor([2.0, 3.0], requires_grad=True)
    objective(losses, torch.tensor([0.5, 0.0])).sum().backward()
    assert losses.grad.tolist() == [0.5, 0.0]


def pictures(rows):
    images = torch.stack([clean_world(0, 16)[i][0] for i in rows])
    prompts = tuple(clean_world(0, 16)[i][1] for i in rows)
    return ScoredPictures((images * 255).round().to(torch.uint8), prompts, torch.zeros(len(rows)))


def run(own, weights, steps=2, batches=None, **settings):
    generator = tiny_flow()
    config = Config(steps=steps, batch_size=len(own), optimiser=OptimiserConfig(1e-3), **settings)
    state = begin(generator.network, config.optimiser)
    records = list(train(generator, Batches(own, len(own), 0), torch.tensor(weights), batches, config, state))
    return generator, records


def test_a_weight_goes_with_its_picture_and_0_is_as_good_as_absent():
    """Two pictures of which one has weight 0 and the other 2: as if that one were both."""
    both, ours = run(pictures([1, 2]), [0.0, 2.0])
    alone = pictures([2, 2])
    order = Batches(pictures([1, 2]), 2, 0)
    assert {tuple(sorted(order.indices(k))) for k in range(2)} == {(0, 1)}
    # the draws differ between the two places of a batch, so only the place of picture 2 may count
    expected = []
    for k in range(2):
        place = order.indices(k).index(1)
        expected.append([2.0 if i == place else 0.0 for i in range(2)])
    generator, state_weights = tiny_flow(), expected
    config = Config(steps=2, batch_size=2, optimiser=OptimiserConfig(1e-3))
    state = begin(generator.network, config.optimiser)

    class Placed(Batches):
        def indices(self, step):
            return [0, 1]

    records = []
    for k, weights in enumerate(state_weights):
        one_step = Config(steps=k + 1, batch_size=2, optimiser=OptimiserConfig(1e-3))
        records += train(generator, Placed(alone, 2, 0), torch.tensor(weights), None, one_step, state)
    assert [r.values["loss"] for r in ours] == pytest.approx([r.values["loss"] for r in records], rel=1e-5)
    assert [r.values["effective_pictures"] for r in ours] == [1.0, 1.0]


def test_equal_weights_are_plain_fine_tuning_and_the_pretraining_loss_is_added():
    own, world = pictures([1, 2, 3]), Batches(clean_world(1, 16), 3)
    _, (plain, *_) = run(own, [1.0, 1.0, 1.0])
    _, (mixed, *_) = run(own, [1.0, 1.0, 1.0], batches=world, pretraining_weight=0.5)
    assert plain.values["effective_pictures"] == pytest.approx(3.0)
    values = mixed.values
    assert values["weighted_loss"] == pytest.approx(plain.values["loss"], rel=1e-5)
    assert values["loss"] == pytest.approx(values["weighted_loss"] + 0.5 * values["pretraining_loss"], rel=1e-5)


def test_own_pictures_are_as_they_would_be_sampled():
    found = draw_scored(tiny_flow(), Bright(), PROMPTS, 3, seed=5)
    assert [p.text for p in found.prompts] == [PROMPTS[0].text] * 3 + [PROMPTS[1].text] * 3
    assert found.images.dtype == torch.uint8 and len({tuple(x.flatten().tolist()) for x in found.images}) == 6
    image, prompt = found[4]
    assert prompt == PROMPTS[1] and image.min() >= 0 and image.max() <= 1
    assert float(found.scores[4]) == pytest.approx(float(image.mean()), abs=0.002)
    again = draw_scored(tiny_flow(), Bright(), PROMPTS, 3, seed=5, batch=2)
    assert (again.images.int() - found.images.int()).abs().max() <= 1
    assert found.take(torch.tensor([4, 0])).images.equal(found.images[[4, 0]])


def test_pictures_move_towards_what_is_rewarded():
    prompts = PROMPTS[:1]
    own = draw_scored(tiny_flow(scale=0.1), Bright(), prompts, 48, seed=1)
    spread = (own.scores - own.scores.mean()) / own.scores.std()
    weights = exponential_weights(spread, 0.3)
    generator = tiny_flow(scale=0.1)
    config = Config(steps=80, batch_size=24, optimiser=OptimiserConfig(2e-3))
    state = begin(generator.network, config.optimiser)
    list(train(generator, Batches(own, 24, 0), weights, None, config, state))
    plain = tiny_flow(scale=0.1)
    state = begin(plain.network, config.optimiser)
    list(train(plain, Batches(own, 24, 0), torch.ones(48), None, config, state))
    weighted, unweighted = (float(sample(g, prompts * 32, range(900, 932)).mean()) for g in (generator, plain))
    assert weighted > unweighted
