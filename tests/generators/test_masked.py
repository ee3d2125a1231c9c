"""Masked-token trajectories: schedules, samplers, exact log-probabilities by enumeration, seeds, forks, bad input."""

import itertools
import json
import math
from collections import Counter

import pytest
import torch
from small import tiny_masked
from torch import nn

from tastemaker.errors import NotDifferentiable, TastemakerError, UnknownName
from tastemaker.generators.masked import MaskedGenerator, draw_tokens, masked_log_prob
from tastemaker.generators.samplers import euler
from tastemaker.generators.tiny_masked import TinyMasked, load_tiny_masked
from tastemaker.generators.token_network import TokenNetworkConfig
from tastemaker.generators.unmasking import (
    MASK,
    SAMPLERS,
    Step,
    amused,
    confidence,
    cosine_times,
    gumbel,
    linear_times,
    pow_times,
    random_order,
    raster,
    released_temperatures,
    show_o,
    staying,
    times_of,
    token_by_token,
)
from tastemaker.protocols import Condition, Draw, Plan, State
from tastemaker.records import Ledger
from tastemaker.sampling import finish, sample
from tastemaker.search.ledger import metered
from tastemaker.world.grammar import evaluation_prompts

PROMPTS = evaluation_prompts(6)[:12]
PLANS = {f.__name__: Plan(f, cosine_times(4)) for f in (confidence, show_o, amused, random_order)}
PLANS["raster"] = Plan(raster, token_by_token(16))


class Coins(MaskedGenerator):
    """3 tokens of 2 codes; the scores depend on all that is known, and on the prompt's length."""

    def __init__(self, causal=False):
        super().__init__(nn.Linear(1, 1), 3, codec=None)
        generator = torch.Generator().manual_seed(4)
        self.weights, self.causal = torch.randn(3, 3, 2, generator=generator), causal
        self.bias = torch.randn(3, 2, generator=generator)

    def encode_text(self, condition):
        return {"length": torch.tensor([[float(len(p.text))] for p in condition.prompts])}

    def predict_logits(self, tokens, t, condition):
        seen = torch.where(tokens == MASK, 0, 2 * tokens - 1).float()  # (B, 3)
        weights = self.weights * torch.ones(3, 3).tril(-1)[..., None] if self.causal else self.weights
        return torch.einsum("bj,ijv->biv", seen, weights) + self.bias * (1 + condition.cache["length"][..., None])


def stays(masked, tokens, share, last=False):
    return int(staying(torch.tensor([masked]), tokens, torch.tensor([1 - share]), torch.tensor([last])))


def test_schedules_say_which_share_is_known():
    assert linear_times(4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert pow_times(2, 3.0) == (0.0, 0.125, 1.0) and times_of("pow3", 2) == pow_times(2, 3.0)
    cosine = cosine_times(18)
    assert len(cosine) == 19 and all(a < b for a, b in zip(cosine, cosine[1:]))
    assert cosine[6] == pytest.approx(1 - math.cos(math.pi / 6), abs=1e-6)
    assert int(256 * (1 - cosine[12])) == 127  # as in single precision; cos(pi / 3) = 1 / 2 would give 128
    with pytest.raises(UnknownName, match="unknown schedule 'cosin'; nearest known: cosine"):
        times_of("cosin", 3)
    with pytest.raises(TastemakerError, match="at least one step"):
        cosine_times(0)


def test_every_step_reveals_a_token_and_the_last_all():
    assert stays(16, 16, 0.99) == 15 and stays(10, 16, 0.5) == 8
    assert stays(3, 16, 0.9) == 2  # no fewer may be revealed than one
    assert stays(2, 16, 0.0) == 1 and stays(2, 16, 0.0, last=True) == 0


@pytest.mark.parametrize("tokens", [1, 2, 3, 10, 18, 49, 64])
def test_token_by_token_is_just_that(tokens):
    times, masked = token_by_token(tokens), torch.tensor([tokens])
    for k in range(tokens):
        masked = staying(masked, tokens, torch.tensor([times[k + 1]]).double(), torch.tensor([k + 1 == tokens]))
        assert int(masked) == tokens - k - 1


def step_of(log_p, known, stay, index, plan, uniform=None):
    uniform = torch.full_like(log_p, 0.5) if uniform is None else uniform
    order = torch.arange(log_p.shape[1]).flip(0).expand_as(log_p)
    return Step(log_p, known, torch.tensor([stay]), order, uniform, torch.tensor([index]), plan)


def test_confidence_masks_the_least_probable_exactly_as_many_as_asked():
    plan = Plan(confidence, linear_times(4), temperature=0.0)
    log_p, known = torch.tensor([[-3.0, -1.0, -2.0, -9.0]]), torch.tensor([[False, False, False, True]])
    assert confidence(step_of(log_p, known, 2, 0, plan)).tolist() == [[True, False, True, False]]
    tied = torch.full((1, 4), -1.0)
    assert confidence(step_of(tied, known, 2, 0, plan)).sum() == 2
    assert (
        show_o(step_of(tied, known, 2, 0, plan)).sum() == 0
    )  # the release: strictly below a threshold that all share


def test_the_temperature_is_a_function_of_the_step():
    assert released_temperatures(4) == pytest.approx([3 / 4, 3 / 8, 3 / 32, 0.0])
    plan = Plan(confidence, linear_times(4), temperature=8.0)
    log_p, known = torch.tensor([[-1.0, -2.0]]), torch.zeros(1, 2, dtype=torch.bool)
    uniform = torch.tensor([[0.01, 0.9]])  # much noise for the second
    assert confidence(step_of(log_p, known, 1, 0, plan, uniform)).tolist() == [[True, False]]
    assert confidence(step_of(log_p, known, 1, 3, plan, uniform)).tolist() == [[False, True]]  # the last: none
    noise = gumbel(torch.tensor([0.0, math.exp(-1)])).tolist()
    assert noise == pytest.approx([-math.log(-math.log(1e-20)), 0.0], abs=1e-5)


def test_orders_do_not_look_at_the_tokens():
    plan, known = Plan(raster, linear_times(4)), torch.zeros(1, 4, dtype=torch.bool)
    for log_p in (torch.zeros(1, 4), torch.randn(1, 4)):
        assert raster(step_of(log_p, known, 1, 2, plan)).tolist() == [[False, False, False, True]]
        assert random_order(step_of(log_p, known, 1, 2, plan)).tolist() == [[True, False, False, False]]


def test_tokens_are_drawn_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0]).expand(1, 20_000, 4)
    uniform = torch.rand(1, 20_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw_tokens(logits, uniform)[0], minlength=4) / 20_000
    torch.testing.assert_close(counts, logits[0, 0].softmax(0), atol=0.01, rtol=0)
    edges = draw_tokens(torch.zeros(1, 3, 2), torch.tensor([[0.0, 0.49, 0.9999999]]))
    assert edges.tolist() == [[0, 0, 1]]


def ends(generator, plan, seed, guidance):
    """Every way a trajectory of this seed can end, with log p as the sum over its steps."""
    state = generator.start(Condition.of(["ab"], guidance), torch.tensor([seed]), plan)
    lines = [(state, 0.0)]
    for _ in range(plan.steps):
        lines = [(after, log_p + p) for before, log_p in lines for after, p in followers(generator, before)]
    return lines


def followers(generator, before):
    reached = generator.advance(before)
    places = ((before.x == MASK) & (reached.x != MASK))[0].nonzero()[:, 0]
    for codes in itertools.product(range(2), repeat=len(places)):
        x = before.x.clone()
        x[0, places] = torch.tensor(codes, dtype=torch.int64)
        after = State(**{**vars(reached), "x": x})
        yield after, float(generator.log_prob(before, after))


@pytest.mark.parametrize("plan", [Plan(random_order, linear_times(2)), Plan(raster, token_by_token(3))])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_log_probabilities_sum_to_one_and_are_the_frequencies(plan, guidance):
    generator = Coins()
    lines = ends(generator, plan, 5, guidance)
    assert len(lines) == 8 and sum(math.exp(p) for _, p in lines) == pytest.approx(1, abs=1e-6)
    expected = {tuple(state.x[0].tolist()): math.exp(p) for state, p in lines}
    count = 4000  # the order belongs to (seed, branch); here it is that of seed 5, and the draws are fresh
    state = generator.start(Condition.of(["ab"] * count, guidance), torch.arange(count), plan)
    order = generator.start(Condition.of(["ab"]), torch.tensor([5]), plan).memory["order"].expand(count, -1)
    state = State(**{**vars(state), "memory": {**state.memory, "order": order}})
    found = Counter(map(tuple, finish(generator, state).x.tolist()))
    for tokens, p in expected.items():
        assert found[tokens] / count == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / count) + 1e-9), tokens


def test_a_causal_network_in_reading_order_is_next_token_generation():
    """The sum over the steps is the log-likelihood of one teacher-forced pass, as in LlamaGen."""
    generator, plan = Coins(causal=True), Plan(raster, token_by_token(3))
    state, total = generator.start(Condition.of(["a", "ab", "abc"]), torch.arange(3), plan), torch.zeros(3)
    while not state.done.all():
        after = generator.advance(state)
        total, state = total + generator.log_prob(state, after), after
    logits = generator.logits(state.x, state.condition)
    at_once = masked_log_prob(logits, state.x, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(total, at_once)


def test_log_prob_is_minus_infinity_for_what_cannot_follow_and_has_a_gradient():
    generator = tiny_masked()
    plan = PLANS["random_order"]
    before = generator.start(Condition.of(PROMPTS[:2]), torch.arange(2), plan)
    after = generator.advance(before)
    log_p = generator.log_prob(before, after)
    assert log_p.shape == (2,) and (log_p < 0).all() and log_p.isfinite().all()
    log_p.sum().backward()
    assert generator.network.head.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert generator.log_prob(before, finish(generator, after)).tolist() == [-math.inf] * 2
        assert generator.log_prob(after[[1, 0]], after).tolist() == [-math.inf] * 2


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", PLANS)
def test_image_k_alone_is_image_k_of_a_batch(name, guidance):
    generator, plan = tiny_masked(), PLANS[name]
    seeds = [7 * k + 1 for k in range(12)]
    together = sample(generator, PROMPTS, seeds, plan, guidance)
    tokens = finish(generator, generator.start(Condition.of(PROMPTS, guidance), torch.tensor(seeds), plan)).x
    assert together.shape == (12, 3, 16, 16) and len({tuple(row) for row in tokens.tolist()}) == 12
    for k in (0, 7, 11):
        alone = sample(generator, [PROMPTS[k]], [seeds[k]], plan, guidance)
        torch.testing.assert_close(alone[0], together[k], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        sample(generator, PROMPTS, seeds, plan, guidance, batch=5), together, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", PLANS)
def test_forks_part_and_the_first_goes_on_as_its_parent(name):
    generator, plan = tiny_masked(), PLANS[name]
    state = generator.advance(generator.start(Condition.of(PROMPTS[:3], 2.0), torch.arange(3), plan))
    children = state.fork(4)
    assert torch.equal(children.x[::4], state.x) and torch.equal(children.x[1], state.x[0])  # they share their past
    ended, plain = finish(generator, children).x, finish(generator, state).x
    assert torch.equal(ended[::4], plain) and len({tuple(row) for row in ended.tolist()}) == 12
    assert torch.equal(finish(generator, children[5]).x[0], ended[5])
    assert torch.equal(finish(generator, State.concatenate([children[:2], children[7]])).x, ended[[0, 1, 7]])


@pytest.mark.parametrize("name", PLANS)
def test_a_trajectory_reveals_for_good_and_ends_complete(name):
    generator, plan = tiny_masked(), PLANS[name]
    state = generator.start(Condition.of(PROMPTS[:2]), torch.arange(2), plan)
    while not state.done.all():
        after = generator.advance(state)
        known = state.x != MASK
        assert torch.equal(after.x[known], state.x[known]) and ((after.x == MASK).sum(1) < (~known).sum(1)).all()
        state = after
    assert (state.x != MASK).all() and torch.equal(state.x, state.memory["drawn"])


def test_more_steps_than_tokens_do_no_harm():
    generator = tiny_masked()
    state = generator.start(Condition.of(PROMPTS[:1]), torch.arange(1), Plan(confidence, cosine_times(20)))
    assert (finish(generator, state).x != MASK).all()


def test_previews_are_whole_pictures_and_cost_nothing_after_the_first_step():
    generator, ledger = tiny_masked(), Ledger()
    with metered(generator.network, ledger):
        state = generator.start(Condition.of(PROMPTS[:2]), torch.arange(2), PLANS["confidence"])
        first = generator.preview(state)
        assert ledger.network_evaluations == 2
        state = generator.advance(state)
        again = generator.preview(state)
        assert ledger.network_evaluations == 4
    assert torch.equal(first, again)  # what the first step was going to draw
    end = finish(generator, state)
    assert torch.equal(generator.preview(end), generator.codec.decode(end.x))


def test_guidance_of_one_is_none_and_two_sides_are_mixed():
    generator = tiny_masked()
    tokens, condition = torch.full((2, 16), MASK), Condition.of(PROMPTS[:2], 1.0)
    plain = generator.logits(tokens, condition)
    torch.testing.assert_close(generator.guided_logits(tokens, condition), plain)
    null = generator.logits(tokens, condition.null())
    guided = generator.guided_logits(tokens, Condition.of(PROMPTS[:2], 3.0))
    torch.testing.assert_close(guided, null + 3 * (plain - null))


def test_the_loss_is_the_mean_over_masked_tokens_whatever_the_batch():
    generator, seeds = tiny_masked(), torch.arange(12)
    x1 = torch.randint(64, (12, 16), generator=torch.Generator().manual_seed(1))
    draw = generator.draw(x1, seeds)
    assert draw.noise.dtype == torch.bool and (draw.noise.sum(1) >= 1).all()
    torch.testing.assert_close(1 - draw.time, draw.noise.float().mean(1), atol=1 / 16, rtol=0)
    loss = generator.loss(x1, Condition.of(PROMPTS), draw)
    logits = generator.logits(torch.where(draw.noise, MASK, x1), Condition.of(PROMPTS))
    entropies = nn.functional.cross_entropy(logits.transpose(1, 2), x1, reduction="none")
    torch.testing.assert_close(loss, torch.stack([e[m].mean() for e, m in zip(entropies, draw.noise)]))
    one = generator.loss(x1[7:8], Condition.of([PROMPTS[7]]), generator.draw(x1[7:8], seeds[7:8]))
    torch.testing.assert_close(one, loss[7:8], rtol=1e-5, atol=1e-5)


def test_masks_are_spread_as_the_cosine_says():
    generator, x1 = tiny_masked(), torch.zeros(3000, 16, dtype=torch.int64)
    draw = generator.draw(x1, torch.arange(3000))
    assert float(1 - draw.time.mean()) == pytest.approx(2 / math.pi, abs=0.02)
    assert draw.noise.float().mean(0).std() < 0.02  # every position alike
    assert isinstance(draw[3], Draw) and draw[3].noise.shape == (1, 16)


def test_the_reference_is_frozen_and_stays():
    generator, x1 = tiny_masked(), torch.zeros(1, 16, dtype=torch.int64)
    base, condition, draw = generator.reference(), Condition.of(PROMPTS[:1]), generator.draw(x1, torch.arange(1))
    before = base.loss(x1, condition, draw)
    with torch.no_grad():
        generator.network.head.bias.normal_()
    assert torch.equal(base.loss(x1, condition, draw), before)
    assert not torch.equal(generator.loss(x1, condition, draw), before)
    assert not any(p.requires_grad for p in base.network.parameters())


def test_what_has_no_gradient_or_density_says_what_to_use():
    generator = tiny_masked()
    state = generator.start(Condition.of(PROMPTS[:1]), torch.arange(1), PLANS["confidence"])
    for asked in (
        lambda: generator.preview(state, grad=True),
        lambda: generator.advance(state, grad=True),
        lambda: generator.velocity(state.x, torch.zeros(1), state.condition),
    ):
        with pytest.raises(NotDifferentiable, match="use `train masked-grpo`"):
            asked()
    with pytest.raises(TastemakerError, match="'confidence' keeps tokens by what was drawn.*`random_order`"):
        generator.log_prob(state, generator.advance(state))
    with pytest.raises(TastemakerError, match=r"draws with .*not with 'euler'"):
        generator.start(Condition.of(PROMPTS[:1]), torch.arange(1), Plan(euler, linear_times(2)))
    with pytest.raises(TastemakerError, match="cannot advance past the last of 4 steps"):
        generator.advance(finish(generator, state))
    with pytest.raises(TastemakerError, match="one seed per prompt"):
        generator.start(Condition.of(PROMPTS[:2]), torch.arange(1))
    assert set(SAMPLERS) == set(PLANS)


def test_files_go_round(tmp_path):
    generator = tiny_masked()
    generator.recipe = {"steps": 3}
    generator.save(tmp_path)
    again = load_tiny_masked(tmp_path)
    assert again.recipe == {"steps": 3} and again.vocabulary.words == generator.vocabulary.words
    assert torch.equal(sample(again, PROMPTS[:2], [0, 1]), sample(generator, PROMPTS[:2], [0, 1]))
    with pytest.raises(UnknownName, match="umbrella"):
        sample(again, ["a photo of an umbrela"], [0])
    with pytest.raises(TastemakerError, match="expected a network for 4 x 4 tokens of 6 bits"):
        TinyMasked.new(TokenNetworkConfig(side=8, bits=6), generator.tokenizer, generator.vocabulary)
    tiny = json.dumps({"kind": "tiny-flow"})
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors", {"description": tiny})
    with pytest.raises(TastemakerError, match="kind 'tiny-flow', expected 'tiny-masked'"):
        load_tiny_masked(tmp_path / "other.safetensors")
