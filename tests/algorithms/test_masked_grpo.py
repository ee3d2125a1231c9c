"""GRPO of masked tokens: its terms against torch's distributions, the ratio at the first step, the optimum in closed
form on a table of tokens."""

import pytest
import torch
from small import tiny_masked
from torch import nn

from tastemaker.algorithms.groups import GroupConfig
from tastemaker.algorithms.kept import Kept
from tastemaker.algorithms.masked_grpo import Config, Revealed, objective, token_kl, train
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.generators.masked import MaskedGenerator
from tastemaker.generators.unmasking import linear_times, random_order, raster
from tastemaker.protocols import Condition, Plan
from tastemaker.records import Prompt, Provenance
from tastemaker.token_probability import token_log_prob

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]


class Bright:
    name, differentiable, range, provenance = "bright", False, (0.0, 1.0), Provenance("bright")

    def score(self, images, prompts):
        return images.mean((1, 2, 3))


class Constant(Bright):
    def score(self, images, prompts):
        return torch.full((len(images),), 0.3)


def run(generator, reward, plan=None, steps=2, groups=None, **settings):
    values = {"batch_size": 2, "optimiser": OptimiserConfig(1e-3), **settings}
    config = Config(steps=steps, groups=groups or GroupConfig(per_prompt=4), **values)
    state, plan = begin(generator.network, config.optimiser), plan or Plan(random_order, linear_times(4))
    return list(train(generator, generator.reference(), [reward], PROMPTS, None, config, state, plan, Kept()))


def test_ratio_kl_and_clip_are_those_of_the_categorical():
    torch.manual_seed(0)
    new, old, ref = (torch.randn(2, 3, 5, dtype=torch.float64) for _ in range(3))
    tokens, mask = torch.randint(5, (2, 3)), torch.tensor([[True, False, True], [True, True, False]])
    p, q, r = (torch.distributions.Categorical(logits=scores) for scores in (new, old, ref))
    step = Revealed(new, ref, tokens, q.log_prob(tokens), mask)
    ratio = (p.log_prob(tokens) - q.log_prob(tokens)).exp()
    torch.testing.assert_close(step.log_ratio().exp(), ratio)
    torch.testing.assert_close(token_kl(new, ref), torch.distributions.kl_divergence(p, r))
    a, config = torch.tensor([0.7, -1.3], dtype=torch.float64), Config(strength=2.0, clip=0.1)
    each = torch.maximum(-a[:, None] * ratio, -a[:, None] * ratio.clamp(0.9, 1.1))
    expected = ((each + torch.distributions.kl_divergence(p, r) / 2) * mask).sum(1)
    torch.testing.assert_close(objective(step, a, config), expected)


@pytest.mark.parametrize("sampler", [random_order, raster])
def test_at_ratio_one_the_gradient_is_that_of_the_generators_own_density(sampler):
    generator, plan = tiny_masked(), Plan(sampler, linear_times(4))
    before = generator.advance(generator.start(Condition.of(PROMPTS), torch.arange(2), plan))
    after, advantage = generator.advance(before), torch.tensor([0.7, -1.3])
    weight = next(p for p in reversed(list(generator.network.parameters())) if p.ndim > 1)
    (expected,) = torch.autograd.grad(-(advantage * generator.log_prob(before, after)).sum(), weight)
    scores = generator.guided_logits(before.x, before.condition)
    log_old = token_log_prob(scores.detach(), after.x)
    step = Revealed(scores, scores.detach(), after.x, log_old, before.x != after.x)
    (found,) = torch.autograd.grad(objective(step, advantage, Config(strength=1e9)).sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rows_at_once", [1, 3, 64])
def test_the_ratio_is_one_at_the_first_step_of_a_round(rows_at_once):
    groups = GroupConfig(per_prompt=4, rows_at_once=rows_at_once, guidance=2.0)
    records = run(tiny_masked(), Bright(), steps=4, groups=groups)
    assert [r.values["ratio"] for r in records[::2]] == [1, 1] and all(r.values["ratio"] != 1 for r in records[1::2])
    assert records[0].values["kl"] == pytest.approx(0, abs=1e-6) and records[1].values["kl"] > 0


def test_equal_rewards_teach_nothing():
    generator = tiny_masked()
    before = [p.detach().clone() for p in generator.network.parameters()]
    records = run(generator, Constant(), steps=1)
    assert records[0].values["gradient_norm"] == pytest.approx(0, abs=1e-6)
    moved = max(float((p.detach() - q).abs().max()) for p, q in zip(generator.network.parameters(), before))
    assert moved < 1.1e-3  # AdamW makes whole steps of rounding


class Table(nn.Module):
    """Scores (N, V) of every position, whatever is known."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.scores = nn.Parameter(torch.randn(2, 3))


class Tokens:
    """A token is a grey level: code 0, 1, 2 -> 0, 1/2, 1."""

    def encode(self, images, seeds):
        raise AssertionError

    def decode(self, x1):
        return (x1.float() / 2)[:, None, None].expand(-1, 3, 1, -1)


class TableGenerator(MaskedGenerator):
    def predict_logits(self, tokens, t, condition):
        return self.network.scores.repeat(len(tokens), 1, 1)


def test_it_reaches_the_optimum_in_closed_form():
    """The reward is the mean grey level, a sum over tokens, so p_ref exp(lambda r) is a product of token by token
    p_ref(v) exp(lambda v / 4)."""
    strength = 6.0
    generator = TableGenerator(Table(), 2, Tokens())
    before = generator.network.scores.detach().clone()
    groups = GroupConfig(per_prompt=128, updates=2, rows_at_once=512)
    optimiser = OptimiserConfig(0.05, warmup_steps=0, ema_decay=0, cosine_steps=150)
    run(generator, Bright(), Plan(random_order, linear_times(2)), 150, groups, strength=strength, optimiser=optimiser)
    target = (before + strength * torch.arange(3) / 4).softmax(-1)
    found = generator.network.scores.detach().softmax(-1)
    assert (found - target).abs().max() < 0.04 and (before.softmax(-1) - target).abs().max() > 0.2
