"""DPO's objective by hand, what one shared draw is worth, pairs of a round, and `train dpo` end to end."""

import json
import math

import pytest
import torch
from small import tiny_flow, tiny_masked

from tastemaker.algorithms import dpo
from tastemaker.algorithms.dpo import (
    Config,
    accuracy,
    gains,
    hinge_loss,
    independent_draws,
    shared_draw,
    sigmoid_loss,
)
from tastemaker.algorithms.dpo_rounds import drawn_pairs, extremes, follow_policy, restore_reference
from tastemaker.algorithms.kept import Kept
from tastemaker.cli.main import main
from tastemaker.data.images import save_image
from tastemaker.errors import TastemakerError
from tastemaker.protocols import Condition
from tastemaker.records import Provenance
from tastemaker.report.metrics import read_metrics
from tastemaker.workflows.dpo import read_preferences, train_dpo
from tastemaker.workflows.load import load_generator
from tastemaker.world.dataset import clean_world
from tastemaker.world.grammar import evaluation_prompts

PROMPTS = evaluation_prompts(6)[:6]
SEEDS = torch.arange(6)
FAMILIES = {"flow": tiny_flow, "masked": tiny_masked}
REWARD = """
def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def same(images, prompts):
    return images.new_zeros(len(images))
"""


class Brightness:
    name, differentiable, range, provenance = "brightness", False, (0.0, 1.0), Provenance("test")

    def score(self, images, prompts):
        return images.mean((1, 2, 3))


def sides(generator):
    world = clean_world(0, 16)
    images = torch.stack([world[k][0] for k in range(12)])
    x1 = generator.codec.encode(images, torch.arange(12))
    return x1[:6], x1[6:]


def moved(generator):
    """The generator after a step away from its reference."""
    base = generator.reference()
    with torch.no_grad():
        for k, p in enumerate(generator.network.parameters()):
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(k)))
    return base


def test_losses_by_hand():
    margin = torch.tensor([0.0, 2.0, -1.0])
    expected = torch.tensor([math.log(2), math.log(1 + math.exp(-1)), math.log(1 + math.exp(0.5))])
    torch.testing.assert_close(sigmoid_loss(margin, 0.5), expected)
    assert hinge_loss(margin, 0.5).tolist() == [1.0, 0.0, 1.5]
    assert float(accuracy(margin)) == pytest.approx(0.5) and float(accuracy(margin, tie=0.0)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gain_is_the_difference_of_losses_over_shared_draws(family):
    generator = FAMILIES[family]()
    base, (winner, loser), condition = moved(generator), sides(generator), Condition.of(PROMPTS)
    config = Config(draws=2)
    good, bad, loss = gains(generator, base, winner, loser, condition, SEEDS, config)
    one, two = (gains(generator, base, winner, loser, condition, SEEDS, Config(draws=k))[0] for k in (1, 2))
    assert good.shape == bad.shape == loss.shape == (6,) and torch.equal(two, good) and not torch.equal(one, two)
    same = gains(generator, base, winner, winner, condition, SEEDS, config)
    torch.testing.assert_close(same[0], same[1])  # one draw: a picture against itself has no margin
    draw = shared_draw(generator, winner, loser, SEEDS)
    assert draw[0] is draw[1]
    with torch.no_grad():
        still = gains(base, base, winner, loser, condition, SEEDS, config)
    assert still[0].tolist() == still[1].tolist() == [0.0] * 6
    loss.sum().backward()
    assert all(p.grad is None for p in base.network.parameters())


def test_a_shared_mask_takes_the_noise_of_the_masked_count_away():
    """The released form's margin of a picture against itself is only noise; its gains grow with the masked count."""
    generator = tiny_masked()
    base, (winner, _), condition = moved(generator), sides(generator), Condition.of(PROMPTS)
    config = Config(draws=1, form="released")
    with torch.no_grad():
        good, bad, _ = gains(generator, base, winner, winner, condition, SEEDS, config)
    assert ((good - bad).abs() > 1e-4).all()
    a, b = independent_draws(generator, winner, winner, SEEDS)
    assert not torch.equal(a.noise, b.noise)
    mean = -(generator.loss(winner, condition, a) - base.loss(winner, condition, a))
    torch.testing.assert_close(dpo.as_token_sum(mean, a), mean * a.noise.sum(1))
    flow = tiny_flow()
    with pytest.raises(TastemakerError, match="form=released is that of masked tokens"):
        gains(flow, flow.reference(), *sides(flow), condition, SEEDS, config)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_prefers_the_winner(family):
    """A small step along it raises the winners' gain above the losers'."""
    generator = FAMILIES[family]()
    base, (winner, loser), condition = generator.reference(), sides(generator), Condition.of(PROMPTS)
    config, weights = Config(draws=4), list(generator.network.parameters())
    for rate in (0.02, 0.02, 0.02):
        good, bad, _ = gains(generator, base, winner, loser, condition, SEEDS, config)
        loss = sigmoid_loss(good - bad, dpo.beta_of(config, generator)).mean()
        gradient = torch.autograd.grad(loss, weights, allow_unused=True)
        length = sum(float(g.pow(2).sum()) for g in gradient if g is not None) ** 0.5
        with torch.no_grad():
            for p, g in zip(weights, gradient):
                p.sub_(rate / length * (0 if g is None else g))
    with torch.no_grad():
        good, bad, _ = gains(generator, base, winner, loser, condition, SEEDS, config)
    assert float((good - bad).mean()) > 0


def test_beta_goes_with_the_reduction():
    assert dpo.beta_of(Config(), tiny_flow()) == 500.0 and dpo.beta_of(Config(), tiny_masked()) == 5.0
    assert dpo.beta_of(Config(form="released"), tiny_masked()) == 0.1 and dpo.beta_of(Config(beta=3.0), None) == 3.0


def test_extremes_drop_prompts_that_agree():
    nan = math.nan
    scores = torch.tensor([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0], [nan, nan, nan], [nan, 2.0, 1.0], [3.0, nan, nan]])
    assert extremes(scores, 0.0).tolist() == [[0, 1, 0], [3, 1, 2]]
    assert extremes(scores, 0.9).tolist() == [[3, 1, 2]]


def test_extremes_pair_the_second_best_with_the_second_worst():
    right = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0] * 6])
    assert extremes(right, 0.0, 3).tolist() == [[0, 1, 0], [0, 3, 2], [0, 5, 4], [1, 0, 1]]
    graded = torch.tensor([[0.1, 0.9, 0.5, math.nan, 0.4]])
    assert extremes(graded, 0.0, 9).tolist() == [[0, 1, 0], [0, 2, 4]]
    assert extremes(graded, 0.2, 9).tolist() == [[0, 1, 0]]


def test_pairs_of_a_round_are_the_best_and_the_worst():
    generator, config = tiny_masked(), Config(drawn_prompts=4, per_prompt=3)
    tensors, found = drawn_pairs(generator, Brightness(), PROMPTS, config, 0)
    means = tensors["images"].float().mean((2, 3, 4))
    assert tensors["images"].shape == (4, 2, 3, 16, 16) and (means[:, 0] > means[:, 1]).all()
    assert found["pairs"] == 4 and found["dropped_prompts"] == 0 and len(set(tensors["positions"].tolist())) == 4
    again, _ = drawn_pairs(generator, Brightness(), PROMPTS, config, 0)
    other, _ = drawn_pairs(generator, Brightness(), PROMPTS, config, 1)
    assert torch.equal(again["images"], tensors["images"]) and not torch.equal(other["images"], tensors["images"])


def test_the_reference_follows_and_is_put_back():
    generator = tiny_masked()
    base, kept = moved(generator), Kept()
    kept.begin(1, follow_policy(base, generator), {})
    ours, theirs = generator.network.state_dict(), base.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    fresh = tiny_masked(seed=3).reference()
    restore_reference(fresh, generator, kept)
    assert all(torch.equal(value, ours[name]) for name, value in fresh.network.state_dict().items())


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, family in FAMILIES.items():
        family().save(tmp_path / name)
    (tmp_path / "reward.py").write_text(REWARD)
    return tmp_path


def words(family, *more):
    common = [f"model={family}", "reward=reward.py:redness", "batch_size=2", "steps=4", "rounds=2", "draws=2"]
    common += ["drawn_prompts=4", "per_prompt=3", "watch.every=2", "watch.pictures=3", "watch.tolerance=100"]
    return [*common, "optimiser.learning_rate=0.001", "optimiser.warmup_steps=0", *more]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_run_goes_on_bit_equal(home, family, monkeypatch):
    """Cut in the second round, whose reference and pairs are those of the checkpoint."""
    assert main(["train", "dpo", *words(family), "--out", "whole"]) == 0
    true_train = dpo.train_rounds

    def cut(*arguments):
        for record in true_train(*arguments):
            yield record
            if record.step == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dpo, "train_rounds", cut)
        patch.setattr("tastemaker.workflows.follow._Clock.due", lambda self, step, *_: True)
        with pytest.raises(KeyboardInterrupt):
            train_dpo(None, words(family), home / "cut")
    train_dpo(resume=home / "cut")
    ours, theirs, before = (load_generator(str(home / n)).network.state_dict() for n in ("cut", "whole", family))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours) and any(
        not torch.equal(ours[k], before[k]) for k in ours
    )
    rows = [[{**r, "seconds": 0} for r in read_metrics(home / n / "metrics.jsonl")] for n in ("cut", "whole")]
    assert rows[0] == rows[1] and [r["round"] for r in rows[0]] == [1, 1, 2, 2]
    assert {"margin", "accuracy", "gain_chosen", "gain_rejected", "dpo_loss"} <= set(rows[0][0])
    assert rows[0][0]["dpo_loss"] == pytest.approx(math.log(2)) and rows[0][2]["dpo_loss"] == pytest.approx(
        math.log(2)
    )
    result = json.loads((home / "whole/result.json").read_text())
    assert result["steps"] == 4 and "redness" in result["differences"]["tuned"]["rewards"]


def test_pairs_of_ones_own_are_learned(home):
    """Forty steps on four pairs: the chosen pictures gain on the rejected ones."""
    world, lines = clean_world(0, 16), []
    for k in range(4):
        image, prompt = world[k]
        save_image(image, home / f"pictures/{k}.png")
        save_image(1 - image, home / f"pictures/{k}-bad.png")
        lines.append({"prompt": prompt.text, "chosen": f"{k}.png", "rejected": f"{k}-bad.png"})
    (home / "pictures/pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(read_preferences(home / "pictures/pairs.jsonl")) == 4
    more = ["rounds=1", "steps=40", "batch_size=4", "watch.every=40", "sft_weight=0.1"]
    run = train_dpo(None, words("masked", *more), home / "run", data=home / "pictures/pairs.jsonl")
    rows = read_metrics(run.folder / "metrics.jsonl")
    assert sum(r["margin"] for r in rows[-5:]) > sum(r["margin"] for r in rows[:5]) + 0.1
    assert rows[-1]["accuracy"] > 0.5 and rows[-1]["dpo_loss"] < rows[0]["dpo_loss"]


def refused(capsys, *given):
    assert main(list(given)) == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["beta=0"], "a beta above 0"),
        (["loss=ipo"], "loss as one of sigmoid, hinge"),
        (["form=mixed"], "form as one of shared, released"),
        (["per_prompt=1"], "per_prompt >= 2"),
        (["rounds=9"], "rounds of at least 1 and at most steps"),
        (["model=lost"], "unknown model 'lost'"),
        (["rounds=1", "--data", "lost.jsonl"], "lost.jsonl"),
        (["--data", "lost.jsonl"], "rounds draw their own pairs"),
    ],
)
def test_what_cannot_be_is_one_sentence(home, capsys, more, sentence):
    assert sentence in refused(capsys, "train", "dpo", *words("masked"), *more, "--out", "run")
    assert not (home / "run").exists()


def test_a_reward_that_tells_nothing_apart_is_said(home, capsys):
    said = refused(capsys, "train", "dpo", *words("masked", "reward=reward.py:same"), "--out", "run")
    assert "'same' tells no two pictures of a prompt apart" in said
