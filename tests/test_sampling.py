"""sample and score: rows in, rows out, and mistakes of rewards named."""

import pytest
import torch
from small import tiny_flow

import tastemaker as tm
from tastemaker.errors import TastemakerError
from tastemaker.protocols import Condition, Prompt
from tastemaker.records import Provenance
from tastemaker.sampling import finish, sample, sample_batches, score, score_checked

WORDS = ["a photo of a cat", "a photo of two dogs", "a photo of a red key"]


class Judge:
    name, differentiable, range, provenance = "judge", True, (0.0, 1.0), Provenance("judge")

    def __init__(self, score, name="judge"):
        self.score, self.name = score, name


def mean(images, prompts):
    return images.mean((1, 2, 3))


def length(images, prompts):
    return [float(len(p.text)) for p in prompts]


def test_sample_is_start_advance_and_preview():
    generator = tiny_flow(scale=0.2)
    state = generator.start(Condition.of(WORDS, generator.guidance), torch.tensor([4, 5, 6]))
    by_hand = generator.preview(finish(generator, state))
    found = sample(generator, WORDS, [4, 5, 6])
    assert found.shape == (3, 3, 16, 16) and found.dtype == torch.float32 and by_hand.min() < 0
    torch.testing.assert_close(found, by_hand.clamp(0, 1))
    torch.testing.assert_close(tm.sample(generator, [Prompt(w) for w in WORDS], range(4, 7)), found)
    assert [len(part) for part in sample_batches(generator, WORDS, [1, 2, 3], batch=2)] == [2, 1]
    assert state.done.tolist() == [False] * 3  # a state is a value: nothing has moved it


def test_guidance_is_the_generators_own_unless_given():
    generator = tiny_flow()
    plain, strong = (sample(generator, WORDS, [1, 2, 3], guidance=g) for g in (1.0, 3.0))
    generator.guidance = 3.0
    assert torch.equal(sample(generator, WORDS, [1, 2, 3]), strong) and not torch.equal(plain, strong)
    assert torch.equal(sample(generator, WORDS, [1, 2, 3], guidance=1.0), plain)


def test_sampling_leaves_the_global_randomness_alone():
    torch.manual_seed(0)
    first = sample(tiny_flow(), WORDS, [1, 2, 3])
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    torch.manual_seed(99)
    assert torch.equal(sample(tiny_flow(), WORDS, [1, 2, 3]), first)


def test_prompts_and_seeds_must_match_and_exist():
    with pytest.raises(TastemakerError, match="one seed per prompt, got 2 seeds and 3 prompts"):
        sample(tiny_flow(), WORDS, [1, 2])
    with pytest.raises(TastemakerError, match="no prompts"):
        sample(tiny_flow(), [], [])


def test_scores_are_columns_in_the_order_of_the_rewards():
    images = torch.rand(5, 3, 8, 8)
    words = ["a", "bb", "ccc", "d", ""]
    found = score([Judge(length, "length"), Judge(mean, "mean")], images, words, batch=2)
    assert found.shape == (5, 2) and found.dtype == torch.float32
    assert found[:, 0].tolist() == [1, 2, 3, 1, 0]
    torch.testing.assert_close(found[:, 1], mean(images, None))


def test_nan_stays_and_is_told_and_infinity_becomes_nan():
    images = torch.rand(3, 3, 8, 8)
    with pytest.warns(UserWarning, match="reward 'judge' gave no score for 2 of 3 pictures"):
        found = score([Judge(lambda i, p: torch.tensor([float("nan"), float("-inf"), 1.0]))], images, WORDS)
    assert found[:, 0].isnan().tolist() == [True, True, False]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda i, p: torch.zeros(2), r"must give one number per picture, shape \(3,\); it gave shape \(2,\)"),
        (lambda i, p: torch.zeros(3, 1), r"it gave shape \(3, 1\)"),
        (lambda i, p: 1.0, r"it gave shape \(\)"),
        (lambda i, p: i.nothing, "reward 'judge' raised AttributeError"),
        (lambda i, p: "high", "reward 'judge' raised TypeError"),
        (lambda i, p: None, "reward 'judge' raised RuntimeError"),
    ],
)
def test_mistakes_of_a_reward_are_named(wrong, sentence):
    with pytest.raises(TastemakerError, match=sentence):
        score([Judge(wrong)], torch.rand(3, 3, 8, 8), WORDS)


def test_a_prompt_for_each_picture():
    with pytest.raises(TastemakerError, match="one prompt per picture, got 3 prompts, 2 pictures"):
        score([Judge(mean)], torch.rand(2, 3, 8, 8), WORDS)


def test_gradients_only_where_asked():
    images = torch.rand(3, 3, 8, 8, requires_grad=True)
    assert not score([Judge(mean)], images, WORDS).requires_grad
    assert score_checked(Judge(mean), images, [Prompt(w) for w in WORDS], grad=True).requires_grad
