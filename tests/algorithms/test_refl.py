"""ReFL: the gradient of one late step against finite differences and closed forms, loss maps, missing rewards."""

import json
import math

import pytest
import torch
from linear_flow import LinearFlow
from small import kept_bytes, tiny_flow

from tastemaker.algorithms import refl
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.refl import (
    Config,
    choose,
    hinge,
    late_preview,
    late_step,
    official_loss,
    paper_loss,
    train,
)
from tastemaker.algorithms.watching import Watch, WatchConfig, watched
from tastemaker.data.batches import Batches
from tastemaker.errors import NotDifferentiable, TastemakerError
from tastemaker.evaluation import drift
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler
from tastemaker.generators.tiny_flow import load_tiny_flow
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.records import Provenance
from tastemaker.sampling import sample
from tastemaker.workflows.refl import train_refl
from tastemaker.world.dataset import clean_world

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs"), Prompt("a photo of a red key")]


class Quadratic:
    """Minus the mean squared distance to a grey; the best mean is 0."""

    name, differentiable, range, provenance = "quadratic", True, (-1.0, 0.0), Provenance("quadratic")

    def score(self, images, prompts):
        return -(images - 0.3).pow(2).mean((1, 2, 3))


class Missing(Quadratic):
    """No score for prompts of dogs: computed as a root of a negative number, whose derivative is NaN too."""

    name = "missing"

    def score(self, images, prompts):
        dogs = torch.tensor([-1.0 if "dog" in p.text else 1.0 for p in prompts])
        return (dogs * (images.mean((1, 2, 3)) + 0.5)).sqrt()


def small_flow(seed=0):
    generator = tiny_flow(seed=seed)
    generator.plan = Plan(euler, uniform_times(4))
    return generator


def gradient(generator, loss):
    parameters = [p for p in generator.network.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def test_the_hinge_and_its_gradient_at_the_margin():
    rewards = torch.tensor([0.0, 1.5, 2.0, 3.0, float("nan")], requires_grad=True)
    loss = hinge(rewards, 2.0)
    assert loss.tolist() == [2.0, 0.5, 0.0, 0.0, 0.0]
    loss.sum().backward()
    assert rewards.grad.tolist() == [-1, -1, 0, 0, 0]


def test_the_maps_of_the_release_and_of_the_paper():
    rewards = torch.tensor([-3.0, 1.5, 2.0, 3.0, float("nan")], requires_grad=True)
    assert official_loss(rewards, scale=0.1).tolist() == pytest.approx([0.5, 0.05, 0.0, 0.0, 0.0])
    assert torch.autograd.grad(official_loss(rewards, 0.1).sum(), rewards)[0].tolist() == pytest.approx(
        [-0.1, -0.1, 0, 0, 0]
    )
    assert paper_loss(rewards, scale=0.1).tolist() == pytest.approx([0, -0.15, -0.2, -0.3, 0])
    assert torch.autograd.grad(paper_loss(rewards, 0.1).sum(), rewards)[0].tolist() == pytest.approx(
        [0, -0.1, -0.1, -0.1, 0]
    )


@pytest.mark.parametrize("late", [0, 2, 4])
def test_the_gradient_of_a_linear_sampler_in_closed_form(late):
    """x1 = x_late (1 + (1 - t) a) with x_late held fixed: the derivative is (1 - t) x_late."""
    generator, h, a = LinearFlow(a=-0.5, steps=5), 0.2, -0.5
    condition, seeds = Condition.of([""] * 3), torch.arange(3)
    images = late_preview(generator, condition, seeds, late)
    before = (1 + h * a) ** late * generator.start(condition, seeds).x
    left = 1 - late * h
    torch.testing.assert_close(images.detach(), before * (1 + left * a) / 100 + 0.5, rtol=1e-5, atol=1e-6)
    images.sum().backward()
    assert float(generator.network.a.grad) == pytest.approx(float(left * before.sum() / 100), rel=1e-4)


@pytest.mark.parametrize("late", [2, 3])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_gradient_against_finite_differences_through_the_late_step(late, guidance):
    """In float64, the earlier steps held fixed: that one evaluation is all that the gradient may see."""
    generator, reward = small_flow(), Quadratic()
    condition, seeds = Condition.of(PROMPTS, guidance), torch.arange(3)
    state = generator.start(condition, seeds)
    for _ in range(late):
        state = generator.advance(state)
    generator.network.double()
    held = type(state)(**{**vars(state), "x": state.x.double()})

    def objective():
        return hinge(reward.score(generator.preview(held, grad=True).clamp(0, 1), PROMPTS), 2.0).mean()

    weights = list(generator.network.parameters())
    exact = torch.autograd.grad(objective(), weights)
    direction = [
        torch.randn(p.shape, generator=torch.Generator().manual_seed(k)).double() for k, p in enumerate(weights)
    ]
    along = sum((g * d).sum() for g, d in zip(exact, direction))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(weights, direction):
                p.add_(sign * 1e-6 * d)
            values.append(objective())
            for p, d in zip(weights, direction):
                p.sub_(sign * 1e-6 * d)
    assert abs(float(along)) > 1e-3
    # float32 inside the velocity (its states are float32 at least) bounds what differences can show
    assert float((values[0] - values[1]) / 2e-6) == pytest.approx(float(along), rel=2e-2)


def test_earlier_steps_leave_no_graph():
    generator = small_flow()
    modes = []
    generator.network.register_forward_hook(lambda m, a, out: modes.append((out.requires_grad, a[0].requires_grad)))
    images = late_preview(generator, Condition.of(PROMPTS), torch.arange(3), 3)
    assert modes == [(False, False)] * 3 + [(True, False)] and images.requires_grad
    loss = Quadratic().score(images, PROMPTS).mean()
    alone = small_flow()  # the same weights: only the last evaluation in the graph
    state = alone.start(Condition.of(PROMPTS), torch.arange(3))
    for _ in range(3):
        state = alone.advance(state)
    v = alone.velocity(state.x, torch.full((3,), 0.75), Condition.of(PROMPTS))
    by_hand = ((state.x + 0.25 * v) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(gradient(generator, loss), gradient(alone, Quadratic().score(by_hand, PROMPTS).mean()))


def test_pictures_are_clamped_before_they_are_judged():
    generator = tiny_flow(scale=0.2)
    images = late_preview(generator, Condition.of(PROMPTS), torch.arange(3), 6)
    assert images.min() >= 0 and images.max() <= 1 and (images == 0).any()


def test_late_steps_are_drawn_evenly_from_the_late_ones():
    drawn = [late_step(Config(first_late=0.5), 12, step) for step in range(1200)]
    assert set(drawn) == set(range(6, 12)) and min(drawn.count(k) for k in set(drawn)) > 150
    assert late_step(Config(first_late=0.99), 1, 5) == 0 and late_step(Config(first_late=0.0), 1, 5) == 0
    assert {late_step(Config(first_late=0.0), 3, k) for k in range(99)} == {0, 1, 2}
    assert min(late_step(Config(first_late=0.58), 50, k) for k in range(999)) == 29
    assert [p.text for p in choose(PROMPTS, Config(batch_size=5), 3)] == [
        p.text for p in choose(PROMPTS, Config(batch_size=5), 3)
    ]


def run(reward, generator=None, batches=None, prompts=PROMPTS, **settings):
    generator = generator or small_flow()
    values = {"steps": 3, "batch_size": 6, "optimiser": OptimiserConfig(learning_rate=1e-3), **settings}
    state = begin(generator.network, values["optimiser"])
    return generator, list(train(generator, reward, prompts, batches, Config(**values), state))


def test_the_reward_rises():
    generator, records = run(Quadratic(), steps=40, reward_weight=10.0, margin=1.0, prompts=PROMPTS[:1])
    before, after = (
        Quadratic().score(sample(g, PROMPTS[:1] * 16, range(100, 116)), PROMPTS[:1] * 16).mean()
        for g in (small_flow(), generator)
    )
    assert after > before + 0.02 and records[-1].values["no_score"] == 0


def test_at_the_margin_nothing_moves():
    generator, records = run(Quadratic(), margin=-2.0)
    assert all(r.values["loss"] == 0 and r.values["gradient_norm"] == 0 for r in records)
    for p, q in zip(generator.network.parameters(), small_flow().network.parameters()):
        assert torch.equal(p, q)


def test_a_reward_that_is_missing_gives_no_loss_and_no_gradient():
    generator, records = run(Missing(), margin=5.0)
    assert sum(r.values["no_score"] for r in records) > 0
    assert all(math.isfinite(r.values["gradient_norm"]) and r.values["gradient_norm"] > 0 for r in records)
    without, records = run(Missing(), margin=5.0, prompts=[PROMPTS[1]])
    assert [r.values["no_score"] for r in records] == [6, 6, 6] and records[0].values["gradient_norm"] == 0
    assert math.isnan(records[0].values["reward"])
    assert all(torch.equal(p, q) for p, q in zip(without.network.parameters(), small_flow().network.parameters()))


def test_a_missing_reward_leaves_the_others_gradient_as_it_was():
    class Known(Missing):
        def score(self, images, prompts):
            kept = torch.tensor(["dog" not in p.text for p in prompts])
            return torch.where(kept, (images.mean((1, 2, 3)) + 0.5).sqrt(), 100.0)

    ours, theirs = run(Missing(), steps=1, margin=5.0)[0], run(Known(), steps=1, margin=5.0)[0]
    for p, q in zip(ours.network.parameters(), theirs.network.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_a_reward_without_gradient_is_refused():
    class Counted(Quadratic):
        name, differentiable = "counted", False

    with pytest.raises(NotDifferentiable, match="'counted' has none. Use it with `search best-of-n`"):
        run(Counted())


def test_the_pretraining_loss_is_added_and_0_leaves_it_out():
    def batches():
        return Batches(clean_world(0, 16), 6, 0)

    full, records = run(
        Quadratic(), batches=batches(), steps=1, reward_weight=0.5, margin=2.0, pretraining_weight=2.0
    )
    values = records[0].values
    images = late_preview(small_flow(), *_first_step(), values["late_step"])
    reward_part = 0.5 * hinge(Quadratic().score(images, PROMPTS), 2.0).mean()
    assert values["loss"] == pytest.approx(float(reward_part.detach()) + 2 * values["pretraining_loss"], rel=1e-4)
    off, records = run(Quadratic(), batches=batches(), pretraining_weight=0.0)
    bare, _ = run(Quadratic(), batches=None)
    assert "pretraining_loss" not in records[0].values
    assert all(torch.equal(p, q) for p, q in zip(off.network.parameters(), bare.network.parameters()))


def _first_step():
    config = Config(batch_size=6)
    seeds = refl.draw_seeds(refl.mix(config.seed, 1), 0, 6)
    return Condition.of(choose(PROMPTS, config, 0), config.guidance), seeds


def test_it_is_reproducible_and_follows_its_seed():
    first, second, other = (run(Quadratic(), seed=s)[0].network.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_held_out_rewards_are_watched():
    class Other(Quadratic):
        name = "other"

    generator, looks = small_flow(), WatchConfig(every=2, pictures=3)
    config = Config(steps=4, batch_size=2, optimiser=OptimiserConfig(), watch=looks)
    state = begin(generator.network, config.optimiser)
    watch = Watch(generator, Quadratic(), [Other()], PROMPTS[:2], looks, drift.figures)
    steps = train(generator, Quadratic(), PROMPTS, None, config, state)
    records = list(watched(steps, watch, state, config.steps))
    assert [r.step for r in records if "held_out/other" in r.values] == [2, 4]
    values = records[1].values
    assert {"held_out/quadratic", "watch/reward_change", "watch/held_out_change", "drift/saturation"} <= set(values)
    assert values["watch/reward_change"] == pytest.approx(values["watch/held_out_change"])  # the same reward twice


def test_it_ends_early_where_the_reward_is_exploited_and_goes_back():
    """What is held out is the opposite of what is followed: the first look is the best that there was."""

    class Opposite(Quadratic):
        name = "opposite"

        def score(self, images, prompts):
            return -super().score(images, prompts)

    generator, settings = small_flow(), WatchConfig(every=5, pictures=4, tolerance=0.05, patience=2)
    optimiser = OptimiserConfig(learning_rate=1e-3, ema_decay=0.5)
    config = Config(steps=200, batch_size=6, reward_weight=10.0, margin=1.0, optimiser=optimiser, watch=settings)
    state = begin(generator.network, optimiser)
    watch = Watch(generator, Quadratic(), [Opposite()], PROMPTS[:1], settings)
    steps = train(generator, Quadratic(), PROMPTS[:1], None, config, state)
    records = list(watched(steps, watch, state, config.steps))
    looks = [r.values for r in records if "watch/exploited" in r.values]
    assert 10 <= len(records) < 200 and [v["watch/exploited"] for v in looks[-2:]] == [1.0, 1.0]
    assert looks[-1]["watch/reward_change"] > 0 > looks[-1]["watch/held_out_change"]
    assert watch.keep(state)
    sound = [v for v in looks if not v["watch/exploited"]]
    best = max((v["watch/reward_change"] for v in sound), default=0.0)
    after = watch.judge(watch.look(), state)  # with the weights that were kept
    assert after["watch/reward_change"] == pytest.approx(max(best, 0.0), abs=1e-4)


def test_another_loss_map_takes_the_place_of_ours():
    generator = small_flow()
    config = Config(steps=1, batch_size=6, optimiser=OptimiserConfig(learning_rate=1e-3))
    state = begin(generator.network, config.optimiser)
    record = next(train(generator, Quadratic(), PROMPTS, None, config, state, loss_map=official_loss))
    assert record.values["loss"] == pytest.approx(1e-3 * (2 - record.values["reward"]), rel=1e-5)


def test_a_reward_of_a_late_step_needs_one_evaluation_of_memory():
    """However many steps there are before: what is kept does not grow with them."""
    sizes = []
    for late in (1, 7):
        generator = small_flow()
        generator.plan = Plan(euler, uniform_times(8))
        sizes.append(
            kept_bytes(lambda g=generator, k=late: late_preview(g, Condition.of(PROMPTS), torch.arange(3), k))
        )
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


REWARD = """
def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


redness.differentiable = True
"""


@pytest.fixture
def tiny_run(tmp_path):
    """A folder with a tiny model and a reward of one's own, and the words that make a run small."""
    small_flow().save(tmp_path / "model")
    (tmp_path / "reward.py").write_text(REWARD)
    words = f"model={tmp_path}/model reward={tmp_path}/reward.py:redness steps=4 batch_size=4 watch.every=4"
    return [*words.split(), "watch.pictures=4", "optimiser.learning_rate=0.001"]


def test_a_cut_run_goes_on_bit_equal_and_keeps_its_standardisation(tiny_run, tmp_path, monkeypatch):
    whole = train_refl(None, tiny_run, tmp_path / "whole")
    true_train = refl.train

    def cut(*arguments, **more):
        for record in true_train(*arguments, **more):
            yield record
            if record.step == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(refl, "train", cut)
    monkeypatch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
    with pytest.raises(KeyboardInterrupt):
        train_refl(None, tiny_run, tmp_path / "cut")
    monkeypatch.setattr(refl, "train", true_train)
    resumed = train_refl(resume=tmp_path / "cut")
    assert resumed.config == whole.config and resumed.config["reward_std"] not in (0.0, 1.0)
    ours, theirs = (load_tiny_flow(r.folder).network.state_dict() for r in (resumed, whole))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and "held_out/sharpness" in rows[-1] and "pretraining_loss" in rows[0]


def test_the_generator_in_hand_is_the_one_on_disk(tiny_run, tmp_path, monkeypatch):
    """The averaged weights that were saved are also those that the demo draws from afterwards."""
    import gc

    from tastemaker.workflows import tuning as workflow

    held = []
    true_load = workflow.load_tunable
    monkeypatch.setattr(workflow, "load_tunable", lambda *a: held.append(true_load(*a)) or held[0])
    run = train_refl(None, tiny_run, tmp_path / "run")
    gc.collect()
    saved = load_tiny_flow(run.folder).network.state_dict()
    for name, value in held[0].network.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_another_model_does_not_resume(tiny_run, tmp_path):
    train_refl(None, tiny_run, tmp_path / "run")
    small_flow(seed=1).save(tmp_path / "model")
    with pytest.raises(TastemakerError, match="cannot resume .* bit-equal, these differ"):
        train_refl(resume=tmp_path / "run")
