"""DRL: the tilt is reached, nothing moves without a reward, the mask, the buffer, resuming, and bad input."""

import math
from dataclasses import replace

import pytest
import torch
from gaussian_flow import SLOPE, VARIANCE, GaussianFlow, Linear, moments
from small import tiny_flow

from tastemaker.algorithms import drl, kept
from tastemaker.algorithms.adjoint_buffer import (
    MOST_GROWTH,
    burst_at,
    on_host,
    shortened,
    terminal,
    trajectory,
    with_adjoints,
)
from tastemaker.algorithms.drl import Config, batch_rows, running_threshold, strata, stratified, train, within
from tastemaker.algorithms.kept import Kept
from tastemaker.algorithms.memoryless import (
    euler_maruyama_scheme,
    even_times,
    in_data_units,
    local_linear_scheme,
    published_scheme,
    transposed_scheme,
)
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.data.batches import Batches
from tastemaker.errors import NotDifferentiable, TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import ddpm, sde
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.records import Provenance
from tastemaker.world.dataset import clean_world

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]


class Redness:
    name, differentiable, range, provenance = "redness", True, (-1.0, 1.0), Provenance("redness")

    def score(self, images, prompts):
        return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


class Nothing(Redness):
    def score(self, images, prompts):
        return 0 * images.mean((1, 2, 3))


class NoDogs(Redness):
    def score(self, images, prompts):
        sign = torch.tensor([-1.0 if "dog" in p.text else 1.0 for p in prompts])
        return (sign * (images.mean((1, 2, 3)).abs() + 0.5)).sqrt()


def run(reward, generator=None, scheme=None, batches=None, store=None, prompts=PROMPTS, state=None, **settings):
    generator = generator or tiny_flow()
    values = {"steps": 2, "batch_size": 4, "buffer": 8, "epochs": 1, "integration_steps": 5, "strength": 5.0}
    config = Config(**{**values, "optimiser": OptimiserConfig(1e-3, max_grad_norm=math.inf), **settings})
    scheme = scheme or local_linear_scheme(config.integration_steps)
    state = state or begin(generator.network, config.optimiser)
    arguments = (generator, generator.reference(), reward, prompts, batches, config, state, scheme, store or Kept())
    return generator, list(train(*arguments))


# what it aims at


@pytest.mark.parametrize("shape, weigh", [((1, 1, 1), in_data_units), ((2, 3, 1), lambda scheme: scheme)])
def test_training_reaches_the_tilt_of_lambda_one(shape, weigh, steps=20):
    """The learned shift of every step is -sigma^2 a / 2, whatever the number of coordinates: the square is a sum."""
    generator, scheme = GaussianFlow(steps, shape), weigh(local_linear_scheme(steps))
    settings = {"integration_steps": steps, "buffer": 8, "batch_size": 8, "epochs": 80}
    settings |= {"time_share": 1.0, "quantile": 1.0}
    optimiser = OptimiserConfig(0.4, betas=(0.9, 0.99), cosine_steps=80, max_grad_norm=math.inf)
    run(Linear(), generator, scheme, steps=80, strength=1.0, optimiser=optimiser, **settings)
    drawn = with_adjoints(
        generator, GaussianFlow(steps, shape), Linear(), PROMPTS, torch.arange(2), strength=1.0, scheme=scheme
    )
    a = torch.stack(drawn.adjoints)[:-1, 0].flatten(1)[:, 0]
    best = -(torch.tensor(scheme.spread) ** 2) / 2 * a
    torch.testing.assert_close(generator.network.shift.detach()[:-1], best, rtol=0.02, atol=2e-3)
    with torch.no_grad():
        mean, var = moments(scheme.plan.sampler, generator.network.double(), even_times(steps))
        base, _ = moments(scheme.plan.sampler, GaussianFlow(steps).network.double(), even_times(steps))
    assert var == pytest.approx(VARIANCE, rel=0.03)
    assert mean - base == pytest.approx(SLOPE * VARIANCE, rel=0.07)  # 5 % of it the bias of T = 20


def test_lambda_multiplies_the_reward():
    generator, scheme = GaussianFlow(20), local_linear_scheme(20)
    found = [
        with_adjoints(generator, generator.reference(), Linear(), PROMPTS, torch.arange(2), strength, scheme).adjoints
        for strength in (1.0, 10.0)
    ]
    assert found[0][-1].flatten().tolist() == pytest.approx([-SLOPE] * 2)
    torch.testing.assert_close(torch.stack(found[1]), 10 * torch.stack(found[0]))


@pytest.mark.parametrize("rows_at_once", [3, 64])
def test_without_a_reward_the_gradient_is_exactly_zero(rows_at_once):
    for quantile in (0.9, 1.0):
        generator, records = run(Nothing(), quantile=quantile, rows_at_once=rows_at_once, steps=3)
        assert [r.values["gradient_norm"] for r in records] == [0, 0, 0]
        assert all(
            torch.equal(p, q) for p, q in zip(generator.network.parameters(), tiny_flow().network.parameters())
        )


@pytest.mark.parametrize(
    "scheme",
    [
        local_linear_scheme(10),
        published_scheme(10),
        euler_maruyama_scheme(10),
        transposed_scheme(Plan(ddpm, uniform_times(10, 0.05, 0.95))),
    ],
    ids=["local-linear", "published", "euler-maruyama", "native"],
)
def test_the_reward_rises_and_the_kl_is_measured(scheme):
    settings = {"buffer": 128, "batch_size": 16, "epochs": 2, "steps": 49, "integration_steps": 10, "quantile": 1.0}
    optimiser = OptimiserConfig(0.1, max_grad_norm=math.inf)
    _, records = run(Linear(), GaussianFlow(10), scheme, strength=2.0, optimiser=optimiser, **settings)
    values = [r.values for r in records]
    assert values[-1]["reward"] > values[0]["reward"] + 0.15  # 2 SLOPE^2 VARIANCE = 0.46 at the optimum
    assert values[0]["kl"] == 0 and values[-1]["kl"] > 0
    assert values[-1]["residual"] < values[0]["residual"]


def test_the_terminal_adjoint_is_the_gradient_of_the_unclamped_picture():
    generator, scheme = tiny_flow(), local_linear_scheme(4)
    state = trajectory(generator, generator.prepare(Condition.of(PROMPTS)), torch.arange(2), scheme.plan)[-1]
    last, scores = terminal(generator, Redness(), state, 2.0)
    per_pixel = 2.0 / (2 * 16 * 16)  # lambda, and the codec's x / 2 + 0.5
    expected = torch.tensor([-1.0, 0.5, 0.5])[:, None, None].expand(3, 16, 16) * per_pixel
    torch.testing.assert_close(last, expected.expand_as(last))
    torch.testing.assert_close(scores, Redness().score(state.x / 2 + 0.5, PROMPTS))
    bright = replace(state, x=state.x + 3)  # out of range, and with its gradient all the same
    torch.testing.assert_close(terminal(generator, Redness(), bright, 2.0)[0], last)


# one step


def test_pieces_give_the_gradient_of_the_whole():
    weights = []
    for rows_at_once in (1, 3, 64):
        optimiser = OptimiserConfig(1e-3, betas=(0.0, 0.0), max_grad_norm=math.inf)
        generator, records = run(Redness(), rows_at_once=rows_at_once, steps=1, quantile=1.0, optimiser=optimiser)
        weights.append((records[0].values["loss"], records[0].values["gradient_norm"]))
    assert weights[0] == pytest.approx(weights[2], rel=1e-4) and weights[1] == pytest.approx(weights[2], rel=1e-4)


def test_half_of_the_times_are_early():
    scheme = local_linear_scheme(25)
    early, late = strata(scheme)
    assert early == list(range(15)) and late == list(range(15, 25))
    drawn = [stratified(scheme, 0.4, 0, step) for step in range(200)]
    assert all(len(set(s)) == 10 and sum(k < 15 for k in s) == 5 for s in drawn)
    assert {k for s in drawn for k in s} == set(range(25)) and len({tuple(s) for s in drawn}) > 150
    assert stratified(scheme, 1.0, 0, 0) == list(range(25)) and len(stratified(scheme, 0.41, 0, 0)) == 11
    plan = transposed_scheme(Plan(ddpm, uniform_times(5)))
    assert plan.trained == [0, 1, 2, 3]  # the last step ends at t = 1 without noise


def test_the_threshold_follows_its_equation():
    norms = torch.tensor([1.0, 2.0, 3.0, 4.0, math.nan, math.inf])
    assert running_threshold(norms, None, 0.5, 0.9, 5) == pytest.approx(2.5)
    assert running_threshold(norms, 1.0, 0.5, 0.9, 5) == pytest.approx(0.9 + 0.1 * 2.5)
    assert running_threshold(norms, 0.1, 0.5, 0.9, 5) == pytest.approx(0.09 + 0.1 * 0.5)  # the spike is capped
    assert running_threshold(norms, None, 1.0, 0.9, 5) == math.inf
    terms = torch.tensor([4.0, 6.0, 6.3, math.nan, math.inf])
    assert within(terms, 2.5).tolist() == [True, True, False, False, False]


def test_every_epoch_takes_each_trajectory_once():
    config = Config(buffer=24, batch_size=8, epochs=2)
    steps = [batch_rows(config, step).tolist() for step in range(12)]
    for first in (0, 3, 6, 9):
        assert sorted(sum(steps[first : first + 3], [])) == list(range(24))
    assert len({tuple(s) for s in steps}) == 12
    halves = [[row < 12 for row in s] for s in steps]
    assert all(half == [True] * 4 + [False] * 4 for half in halves)  # two processes have as many rows each


def test_the_mask_leaves_out_the_loudest_tenth():
    _, records = run(Redness(), buffer=32, batch_size=32, time_share=1.0, steps=1)
    assert records[0].values["kept_share"] == pytest.approx(0.9, abs=0.02)
    _, records = run(Redness(), buffer=32, batch_size=32, time_share=1.0, steps=1, quantile=1.0)
    assert records[0].values["kept_share"] == 1


# the buffer


def test_long_adjoints_are_shortened_to_a_multiple_of_the_median_of_their_step():
    adjoint = torch.ones(2, 5, 1, 1, 1) * torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0]).reshape(1, 5, 1, 1, 1)
    adjoint[1] *= -10
    sound = torch.tensor([True] * 5)
    found = shortened(adjoint, sound, multiple=1.5)[..., 0, 0, 0]
    torch.testing.assert_close(found[0], torch.tensor([1.0, 2.0, 3.0, 4.0, 4.5]))
    torch.testing.assert_close(found[1], -10 * found[0])
    sound[4] = False  # whose length says nothing: the median is then that of 1, 2, 3, 4, the lower of the middle ones
    torch.testing.assert_close(shortened(adjoint, sound, 1.5)[0, 3, 0, 0, 0], torch.tensor(3.0))


def test_a_cut_changes_what_is_learned_and_only_from_long_adjoints():
    same, _ = run(Redness(), adjoint_cut=1e6)
    plain, _ = run(Redness())
    cut, _ = run(Redness(), adjoint_cut=0.5)
    for one, other in zip(same.network.parameters(), plain.network.parameters()):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(plain.network.parameters(), cut.network.parameters()))


def test_a_half_buffer_is_half_as_large_and_nearly_the_same():
    assert drl.buffer_bytes(64, 25, (3, 32, 32), half=False) == 2 * 64 * 25 * 3072 * 4
    drawn = with_adjoints(tiny_flow(), tiny_flow(), Redness(), PROMPTS, torch.arange(2), 1.0, local_linear_scheme(4))
    whole, half = on_host(drawn), on_host(drawn, half=True)
    sizes = [sum(b[n].untyped_storage().nbytes() for n in ("x", "adjoint")) for b in (whole, half)]
    assert sizes == [drl.buffer_bytes(2, 4, (3, 16, 16), half=h) for h in (False, True)]
    torch.testing.assert_close(half["x"].float(), whole["x"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(half["adjoint"].float(), whole["adjoint"], rtol=1e-2, atol=1e-6)
    _, records = run(Redness(), half=True)
    assert math.isfinite(records[-1].values["loss"])


def test_the_same_image_alone_or_in_any_batch():
    scheme, seeds = local_linear_scheme(4), torch.tensor([3, 4])
    both = with_adjoints(tiny_flow(), tiny_flow(), Redness(), PROMPTS, seeds, 1.0, scheme)
    alone = with_adjoints(tiny_flow(), tiny_flow(), Redness(), PROMPTS[1:], seeds[1:], 1.0, scheme)
    torch.testing.assert_close(torch.stack(both.adjoints)[:, 1:], torch.stack(alone.adjoints), rtol=1e-4, atol=1e-7)


def test_a_buffer_that_does_not_fit_is_refused_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr(kept, "free_memory", lambda: 10**6)
    with pytest.raises(
        TastemakerError, match=r"buffer of 2304 trajectories .* needs 0.1 GiB of memory, and .* are free.*half=true"
    ):
        run(None_drawn(), buffer=2304, batch_size=576)


class None_drawn(Redness):
    def score(self, images, prompts):
        raise AssertionError("nothing is to be drawn")


def test_free_memory_is_known_here():
    found = kept.free_memory()
    assert found is None or 2**20 < found < 2**50


# rewards that are missing, adjoints that burst


def test_pictures_without_a_reward_are_left_out():
    store = Kept()
    generator, records = run(NoDogs(), store=store, steps=3)
    count, sound, x = records[0].values["no_score"], store.tensors["sound"], store.tensors["x"]
    assert 0 < count < 8 and sound.sum() == 8 - records[-1].values["no_score"]
    assert x[:, ~sound].abs().max() == 0 < x[:, sound].abs().max()
    assert all(math.isfinite(r.values["gradient_norm"]) for r in records)
    _, records = run(NoDogs(), buffer=8, batch_size=8, time_share=1.0, steps=1, quantile=1.0)
    assert records[0].values["kept_share"] == pytest.approx(1 - records[0].values["no_score"] / 8)
    with pytest.raises(TastemakerError, match="'redness' gave no score for any of the 8 pictures"):
        run(NoDogs(), prompts=PROMPTS[1:])


def test_where_an_adjoint_burst():
    fine, nan = [1.0, 1.0, 1.0], [1.0, math.nan, 1.0]
    grown, none = [10 * MOST_GROWTH, 2.0, 1.0], [0.0, 0.0, 0.0]
    assert burst_at(torch.tensor([fine, nan, grown, none]).T).tolist() == [-1, 1, 0, -1]


@pytest.mark.parametrize("factor", [1e4, math.nan])
def test_exploding_adjoints_are_named(factor):
    generator = tiny_flow()
    base = tiny_flow()
    velocity = base.predict_velocity
    base.predict_velocity = lambda x, t, condition: factor * velocity(x, t, condition)
    generator.reference = lambda: base
    with pytest.raises(TastemakerError, match=r"adjoints of 8 of 8 trajectories .* at step \d of 5. Use integrator"):
        run(Redness(), generator)
    assert all(torch.equal(p, q) for p, q in zip(generator.network.parameters(), tiny_flow().network.parameters()))


# going on, and what cannot be


def test_a_cut_run_goes_on_bit_equal_inside_a_round():
    whole, _ = run(Redness(), steps=6, epochs=2)
    generator, store = tiny_flow(), Kept()
    config = OptimiserConfig(1e-3, max_grad_norm=math.inf)
    state = begin(generator.network, config)
    run(Redness(), generator, state=state, store=store, steps=3, epochs=2)
    again, more = tiny_flow(), Kept()
    base = again.reference()
    resumed = begin(again.network, config)
    resumed.load_state_dict(state.state_dict())
    more.load_state_dict(store.state_dict())
    again.reference = lambda: base
    run(Redness(), again, state=resumed, store=more, steps=6, epochs=2)
    assert all(torch.equal(p, q) for p, q in zip(whole.network.parameters(), again.network.parameters()))


def test_the_pretraining_loss_is_added():
    batches = Batches(clean_world(0, 16), 4)
    _, alone = run(Redness(), steps=1)
    _, records = run(Redness(), batches=batches, steps=1, pretraining_weight=2.0)
    assert records[0].values["loss"] > alone[0].values["loss"] + 0.1


def test_what_cannot_be_is_refused():
    class Counted(Redness):
        name, differentiable = "counted", False

    with pytest.raises(NotDifferentiable, match="'counted' has none"):
        run(Counted())
    with pytest.raises(TastemakerError, match="expected guidance = 1 in DRL's training.*got 2"):
        Config(guidance=2.0)
    with pytest.raises(TastemakerError, match="memoryless schedule"):
        run(Redness(), scheme=transposed_scheme(Plan(sde, uniform_times(5), 0.7)))
    with pytest.raises(TastemakerError, match="a buffer that is a multiple of batch_size = 16, got 40"):
        Config(buffer=40)
    with pytest.raises(TastemakerError, match="a memoryless integrator, local-linear, published.*got heun"):
        Config(integrator="heun")
    with pytest.raises(TastemakerError, match="a preset among theory, default, quick, got strong"):
        Config(preset="strong")
    with pytest.raises(TastemakerError, match="a weighting among data, velocity, path, got even"):
        Config(weighting="even")
    with pytest.raises(TastemakerError, match="no prompts"):
        run(Redness(), prompts=[])
