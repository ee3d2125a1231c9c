"""Released class generators: direction of time, evaluations, guidance, classes, and the same picture in any batch."""

from dataclasses import replace

import pytest
import torch
from tiny_releases import CLASSES, JIT_TINY, Knowing, networks

from tastemaker.errors import TastemakerError
from tastemaker.generators.class_flow import (
    ClassFlow,
    GuidanceRule,
    class_numbers,
    closed,
    opened,
    time_direction,
)
from tastemaker.generators.flow import PixelCodec, uniform_times
from tastemaker.generators.jit import jit_plan, jit_release, native_state, native_time, our_time
from tastemaker.generators.rae import rae_release, shift_of, shifted_grid
from tastemaker.generators.samplers import euler, heun
from tastemaker.generators.sit import FIRST_THREE, REPA, SIT
from tastemaker.generators.solvers import heun2, heun3, midpoint, rk4, sde_sigma, sde_sigma_mean_last
from tastemaker.protocols import Condition, Draw, Plan
from tastemaker.records import Prompt
from tastemaker.sampling import finish, sample

KINDS = ("sit", "repa", "jit", "rae")
SHAPES = {"sit": (4, 4, 4), "repa": (4, 4, 4), "jit": (3, 8, 8), "rae": (8, 4, 4)}
RELEASES = {"sit": SIT, "repa": REPA, "jit": jit_release(), "rae": rae_release(shift_of(128 * 64))}


def generator_of(kind, **more):
    return ClassFlow(networks()[kind], SHAPES[kind], PixelCodec(), RELEASES[kind], **more)


def knowing(kind, noise_scale=1.0):
    x1 = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    network = Knowing(kind, x1, noise_scale)
    return ClassFlow(network, (3, 4, 4), PixelCodec(), network.release)


def classes(*labels, guidance=1.0):
    return Condition.of([Prompt("", label=y) for y in labels], guidance)


def counted(generator):
    """(time, rows) of each call of the network from now on."""
    calls = []
    generator.network.register_forward_pre_hook(lambda _, inputs: calls.append((float(inputs[1][0]), len(inputs[0]))))
    return calls


@pytest.mark.parametrize("kind, scale", [*((k, 1.0) for k in KINDS), ("jit", 2.0)])
def test_time_runs_from_noise_to_data_and_the_velocity_is_data_minus_noise(kind, scale):
    generator = knowing(kind, scale)
    x1, seeds = generator.network.x1.detach(), torch.arange(6)
    data = x1.expand(6, 3, 4, 4)
    draw = generator.draw(data, seeds)
    draw = Draw(draw.time.clamp(0.02, 0.94), draw.noise)
    assert generator.loss(data, classes(*[0] * 6), draw).max() < 1e-6
    assert time_direction(generator, data / 2 + 0.5, [Prompt("0")] * 6, seeds) > 0.999
    state = finish(generator, generator.start(classes(0, 1), torch.tensor([3, 4])))
    short = {"rae": 0.05, "jit": 0.1 * scale}  # RAE stops 0.7 % before; JiT's floor shortens its last steps
    assert (state.x - x1).abs().max() < short.get(kind, 1e-4)
    reversed_time = replace(
        generator.release, velocity=lambda n, x, t, c: -generator.release.velocity(n, x, 1 - t, c)
    )
    other = ClassFlow(generator.network, (3, 4, 4), PixelCodec(), reversed_time)
    assert time_direction(other, data / 2 + 0.5, [Prompt("0")] * 6, seeds) < 0


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_finite_and_the_same_alone_as_in_a_batch(kind):
    generator = generator_of(kind)
    generator.plan = generator.native_plan(3)
    prompts = ["0", "4", "", "2"]
    images = sample(generator, prompts, [5, 6, 7, 8], guidance=1.5)
    assert images.shape == (4, *SHAPES[kind]) and images.isfinite().all() and images.std() > 0.01
    for k in range(4):
        torch.testing.assert_close(
            sample(generator, prompts[k : k + 1], [5 + k], guidance=1.5)[0], images[k], rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_goes_through_the_last_step_and_the_preview(kind):
    generator = generator_of(kind)
    state = generator.start(classes(1, 2), torch.tensor([0, 1]), generator.native_plan(2))
    state = generator.advance(state, grad=True)
    generator.preview(state, grad=True).pow(2).sum().backward()
    without = [n for n, p in generator.network.named_parameters() if p.requires_grad and p.grad is None]
    assert all(n.startswith("projectors.") for n in without)
    assert all(p.grad.isfinite().all() for p in generator.network.parameters() if p.grad is not None)
    assert generator.network.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_frozen_and_the_draw_belongs_to_the_seed(kind):
    generator = generator_of(kind)
    frozen = generator.reference()
    assert not any(p.requires_grad for p in frozen.network.parameters())
    x1 = torch.randn(3, *SHAPES[kind])
    draw = generator.draw(x1, torch.tensor([1, 2, 3]))
    again = generator.draw(x1[:1], torch.tensor([2]))
    assert torch.equal(draw.time[1:2], again.time) and torch.equal(draw.noise[1:2], again.noise)
    assert (draw.time > 0).all() and (draw.time < 1).all() and draw.time.unique().numel() == 3
    loss = generator.loss(x1, classes(0, 1, 2), draw)
    torch.testing.assert_close(frozen.loss(x1, classes(0, 1, 2), draw), loss)


@pytest.mark.parametrize("kind, calls", [("sit", 9), ("repa", 9), ("jit", 9), ("rae", 5)])
def test_five_steps_ask_the_network_as_often_as_stated(kind, calls):
    generator = generator_of(kind)
    asked = counted(generator)
    finish(generator, generator.start(classes(1, guidance=1.0), torch.tensor([0]), generator.native_plan(5)))
    assert len(asked) == calls  # Heun: 2 steps - 1, the last step is Euler's; RAE: Euler
    assert generator.plan.steps == (49 if kind == "rae" else 50)


@pytest.mark.parametrize("solver, order, calls", [(midpoint, 2, 2), (heun2, 2, 2), (heun3, 3, 3), (rk4, 4, 4)])
def test_solvers_have_their_order(solver, order, calls):
    """dx/dt = x cos t, whose end is x exp(sin 1)."""
    counter = []

    def velocity(x, t):
        counter.append(t)
        return x * t.cos().reshape(-1, 1)

    def error(steps):
        x = torch.ones(1, 1, dtype=torch.float64)
        for k in range(steps):
            t, s = (torch.tensor([(k + i) / steps], dtype=torch.float64) for i in (0, 1))
            x = solver(velocity, x, t, s, 0.0).mean
        return abs(float(x) - torch.tensor(1.0, dtype=torch.float64).sin().exp().item())

    ratio = error(8) / error(16)
    assert 2 ** (order - 0.4) < ratio < 2 ** (order + 0.6) and len(counter) == 24 * calls


def test_the_sigma_sde_keeps_the_marginals_of_gaussian_data():
    """Data N(0, 1) at all times in all dimensions: x_t has variance t^2 + (1 - t)^2 and v = (2t - 1) x / that."""

    def velocity(x, t):
        t = t.reshape(-1, 1)
        return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x

    x = torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    times = torch.linspace(0, 1, 201)
    for t, s in zip(times[:-1], times[1:]):
        step = sde_sigma(velocity, x, t.expand(4), s.expand(4), 1.0)
        x = step.mean + step.std[:, None] * torch.randn(x.shape, generator=noise)
        if abs(float(s) - 0.5) < 1e-4:
            assert abs(float(x.var()) - 0.5) < 0.02
    assert abs(float(x.var()) - 1) < 0.03
    last = sde_sigma_mean_last(velocity, x, torch.tensor([0.9] * 4), torch.tensor([0.95, 1, 0.95, 1]), 1.0)
    assert last.std.tolist() == [pytest.approx((2 * 0.1 * 0.05) ** 0.5), 0, pytest.approx(0.1), 0]


def test_a_step_of_the_sde_has_a_density_and_a_deterministic_one_has_not():
    generator = generator_of("repa")
    plan = Plan(sde_sigma_mean_last, (0.0, 0.5, 0.96, 1.0))
    before = generator.start(classes(1, 2), torch.tensor([0, 1]), plan)
    after = generator.advance(before)
    step = generator.transition(before)
    assert step.std.tolist() == [1.0, 1.0]
    expected = torch.distributions.Normal(step.mean, 1.0).log_prob(after.x).flatten(1).sum(1)
    torch.testing.assert_close(generator.log_prob(before, after), expected)


# guidance


def parts(generator, x, t, label):
    null = classes(label).null()
    return generator.velocity(x, t, null), generator.velocity(x, t, classes(label))


@torch.no_grad()
def test_guidance_is_towards_the_class_and_away_from_the_null_class():
    generator = generator_of("sit")
    x, t = torch.randn(1, 4, 4, 4), torch.tensor([0.4])
    null, plain = parts(generator, x, t, 3)
    assert not torch.allclose(null, plain)
    found = generator.guided_velocity(classes(3, guidance=2.5))(x, t)
    torch.testing.assert_close(found, null + 2.5 * (plain - null))
    torch.testing.assert_close(generator.guided_velocity(classes(3))(x, t), plain)


@torch.no_grad()
def test_the_release_s_own_way_guides_three_channels_and_leaves_the_fourth():
    generator = generator_of("sit", rule=FIRST_THREE)
    x, t = torch.randn(3, 4, 4, 4), torch.tensor([0.2, 0.4, 0.6])
    asked = replace(classes(3, 1, 0), guidance=torch.tensor([2.5, 1.0, 4.0]))
    found = generator.guided_velocity(asked)(x, t)
    every = ClassFlow(generator.network, (4, 4, 4), PixelCodec(), SIT).guided_velocity(asked)(x, t)
    torch.testing.assert_close(found[:, :3], every[:, :3])
    torch.testing.assert_close(found[:, 3], generator.velocity(x, t, asked)[:, 3])


@torch.no_grad()
def test_outside_of_the_interval_the_class_stands_alone_and_costs_one_row():
    generator = generator_of("jit")
    asked, x = counted(generator), torch.randn(1, 3, 8, 8)
    velocity = generator.guided_velocity(classes(3, guidance=3.0))
    for t, rows in ((0.05, 1), (0.1, 1), (0.11, 2), (0.99, 2), (1.0, 1)):
        velocity(x, torch.tensor([t]))
        assert asked[-1][1] == rows, t
    assert closed(0.1, 0.7)(torch.tensor([0.1, 0.7, 0.71])).tolist() == [True, True, False]
    assert opened(0.0, 0.7)(torch.tensor([0.0, 0.7, 0.69])).tolist() == [True, False, True]


@torch.no_grad()
@pytest.mark.parametrize("held, rows", [(True, [1, 1, 1, 1, 2, 2, 2]), (False, [1, 1, 1, 2, 2, 2, 2])])
def test_a_held_rule_decides_once_for_both_evaluations_of_heun(held, rows):
    generator = generator_of("sit", rule=GuidanceRule(closed(0.25, 1.0), held=held))
    asked = counted(generator)
    condition, plan = classes(2, guidance=2.0), Plan(heun, (0.0, 0.2, 0.3, 0.5, 1.0))
    state = generator.start(condition, torch.tensor([0]), plan)
    finish(generator, state)
    assert [n for _, n in asked] == rows
    del asked[:]
    generator.preview(replace(state, step=torch.tensor([2])))  # one evaluation, by the interval
    assert [n for _, n in asked] == [2]


# classes


def test_classes_are_labels_or_numbers_and_nothing_is_the_null_class():
    prompts = [Prompt("a photo of a tench", label=0), Prompt("3"), Prompt(""), Prompt(" 4 ")]
    assert class_numbers(prompts, CLASSES).tolist() == [0, 3, CLASSES, 4]


@pytest.mark.parametrize(
    "prompt, words",
    [
        (Prompt("a tench"), "'a tench' names none by number; write a number from 0 to 4"),
        (Prompt("5"), "expected a class from 0 to 4, got 5"),
        (Prompt("x", label=-1), "expected a class from 0 to 4, got -1"),
        (Prompt("²"), "names none by number"),
    ],
)
def test_other_words_and_other_numbers_are_refused_before_anything_is_drawn(prompt, words):
    with pytest.raises(TastemakerError, match=words):
        sample(generator_of("sit"), [prompt], [0])


# JiT with wider noise


def test_wider_noise_is_the_straight_path_in_other_units():
    t = torch.tensor([0.0, 0.3, 0.9, 1.0])
    x1, x0 = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    u = native_time(t, 2.0)
    torch.testing.assert_close(our_time(u, 2.0), t)
    shape = (4, 1, 1, 1)
    x = t.reshape(shape) * x1 + (1 - t).reshape(shape) * x0
    z = u.reshape(shape) * x1 + (1 - u).reshape(shape) * 2.0 * x0
    torch.testing.assert_close(native_state(x, t, 2.0), z)


@torch.no_grad()
def test_heun_with_wider_noise_is_the_release_s_own_loop():
    generator = ClassFlow(networks()["jit"], SHAPES["jit"], PixelCodec(), jit_release(2.0))
    condition, label = classes(2), torch.tensor([2])
    state = generator.start(condition, torch.tensor([0]), jit_plan(4, 2.0))
    z, grid = 2.0 * state.x, uniform_times(4)

    def native(z, u):
        return (generator.network(z, torch.tensor([u]), label) - z) / max(1 - u, 0.05)

    for k, (u, v) in enumerate(zip(grid, grid[1:])):
        slope = native(z, u)
        if k < 3:
            slope = (slope + native(z + (v - u) * slope, v)) / 2
        z = z + (v - u) * slope
    torch.testing.assert_close(finish(generator, state).x, z, rtol=1e-4, atol=1e-4)


def test_the_shifted_grid_ends_before_data_and_a_plan_needs_a_step():
    grid = shifted_grid(49, shift_of(768 * 16 * 16))
    assert len(grid) == 50 and grid[0] == 0 and grid[-1] == pytest.approx(1 - 0.00688728, abs=1e-7)
    assert all(a < b for a, b in zip(grid, grid[1:]))
    assert generator_of("rae").native_plan(2).sampler is euler
    with pytest.raises(TastemakerError, match="1 step or more"):
        generator_of("jit").native_plan(0)


def test_jit_s_class_tokens_matter_and_are_cut_before_the_head():
    network = networks()["jit"]
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    before = network(x, t, y)
    assert before.shape == x.shape
    with torch.no_grad():
        network.in_context_posemb.add_(1.0)
    assert not torch.allclose(network(x, t, y), before)
    (cos, _), (longer, _) = network.rotations(torch.device("cpu"))
    assert longer.shape[0] == JIT_TINY.context + cos.shape[0] and torch.equal(longer[0], torch.ones_like(cos[0]))
