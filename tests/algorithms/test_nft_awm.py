"""DiffusionNFT and AWM: objectives against closed forms, the old policy, and that both follow a black-box reward."""

import math

import pytest
import torch
from gaussian_flow import GaussianFlow
from small import tiny_flow

from tastemaker.algorithms import awm, nft
from tastemaker.algorithms.groups import GroupConfig, asked, follow, noised, old_policy, remembered
from tastemaker.algorithms.kept import Kept
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.errors import TastemakerError
from tastemaker.protocols import Condition, Prompt
from tastemaker.records import Provenance

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]
METHODS = {"nft": nft, "awm": awm}


class Bright:
    """The mean of what is drawn, brought to the middle of the range so that no clamp acts; without gradient."""

    name, differentiable, range, provenance = "bright", False, (0.0, 1.0), Provenance("bright")

    def score(self, images, prompts):
        return images.mean((1, 2, 3)) * 100 - 50


class Constant(Bright):
    def score(self, images, prompts):
        return torch.full((len(images),), 0.3)


class Middle:
    def decode(self, x1):
        return x1 / 100 + 0.5


def run(name, reward, generator=None, groups=None, kept=None, **settings):
    method, generator = METHODS[name], generator or tiny_flow()
    values = {"steps": 2, "batch_size": 2, "optimiser": OptimiserConfig(1e-3), **settings}
    config = method.Config(groups=groups or GroupConfig(per_prompt=4), **values)
    state, kept = begin(generator.network, config.optimiser), kept or Kept()
    arguments = (generator, generator.reference(), [reward], PROMPTS, None, config, state, kept)
    return generator, list(method.train(*arguments))


def tensors(*shape):
    torch.manual_seed(0)
    v, v_old, v_ref, x, x1 = (torch.randn(*shape, dtype=torch.float64) for _ in range(5))
    return v, v_old, v_ref, x, x1, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)


# DiffusionNFT


def test_what_a_picture_was_worth():
    assert nft.worth(torch.tensor([-9.0, -5.0, 0.0, 2.5, 9.0])).tolist() == [0, 0, 0.5, 0.75, 1]
    signs = nft.ADVANTAGES["binary"](torch.tensor([-3.0, 0.0, 2.0]))
    assert nft.worth(signs).tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_the_objective_by_hand():
    v, v_old, v_ref, x, x1, t = tensors(3, 2, 4, 4)
    r, config, beta = torch.tensor([0.2, 0.5, 1.0]).double(), nft.Config(beta=0.3, kl_weight=0.7), 0.3
    for k in range(3):
        terms = []
        for mixed in (beta * v[k] + (1 - beta) * v_old[k], (1 + beta) * v_old[k] - beta * v[k]):
            error = x[k] + (1 - t[k]) * mixed - x1[k]
            terms.append((error**2).mean() / error.abs().mean())
        expected = 5 / beta * (r[k] * terms[0] + (1 - r[k]) * terms[1]) + 0.7 * (v[k] - v_ref[k]).pow(2).mean()
        found = nft.objective(v, v_old, v_ref, x, t, x1, r, config)[k]
        assert float(found) == pytest.approx(float(expected))


def test_the_gradient_goes_towards_good_pictures_and_away_from_bad():
    """At v = v_old it is 2 A_max (2 r - 1) (1 - t) e / (n mean|e|), e the error of the predicted picture."""
    v_old, _, _, x, x1, t = tensors(3, 2, 4, 4)
    for worth in (0.0, 0.5, 0.8):
        v = v_old.clone().requires_grad_()
        r = torch.full((3,), worth, dtype=torch.float64)
        nft.objective(v, v_old, v_old, x, t, x1, r, nft.Config(beta=0.4)).sum().backward()
        left = (1 - t)[:, None, None, None]
        error = x + left * v_old - x1
        size = error.abs().flatten(1).mean(1)[:, None, None, None]
        torch.testing.assert_close(v.grad, 2 * 5 * (2 * worth - 1) * left * error / (32 * size))


def test_the_memory_of_the_old_policy_grows():
    config = nft.Config(old_rise=0.1, old_most=0.35)
    assert [nft.old_memory(k, config) for k in range(5)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.35])
    generator = GaussianFlow(4)
    kept = Kept(tensors=remembered(generator.network))
    with torch.no_grad():
        generator.network.shift.fill_(1.0)
    follow(kept, generator.network, 0.75)
    assert kept.tensors["old.shift"].tolist() == [0.25] * 5
    with old_policy(generator.network, kept):
        assert generator.network.shift.tolist() == [0.25] * 5
    assert generator.network.shift.tolist() == [1.0] * 5


def test_at_first_the_old_policy_is_the_policy():
    kept = Kept()
    _, records = run("nft", Bright(), kept=kept, steps=5, old_rise=0.3)
    distances = [r.values["from_old"] for r in records]
    assert distances[0] == 0 and min(distances[1:]) > 0
    _, records = run("nft", Bright(), steps=5, old_most=0.0)
    assert [r.values["from_old"] == 0 for r in records] == [True, False, True, False, True]
    assert kept.number == 2 and any(name.startswith("old.") for name in kept.tensors)


# AWM


def test_the_surrogate_density_by_hand():
    v, _, x0, _, x1, t = tensors(3, 2, 4, 4)
    square = (v - (x1 - x0)).pow(2).flatten(1).mean(1)
    noise, small = 1 - t, 1e-10
    expected = {
        "uniform": -square,
        "noise": -square * noise,
        "noise-squared": -square * noise**2,
        "huber": -((square + small).sqrt() - 1e-5) * noise,
        "generalised-huber": -((square + small) ** 0.25 - small**0.25) * noise / 0.25,
    }
    assert expected.keys() == awm.WEIGHTINGS.keys()
    for name, value in expected.items():
        torch.testing.assert_close(awm.log_density(v, x1, x0, t, name), value)
    assert awm.over_times(torch.tensor([1.0, 2.0, 3.0, 5.0]), 2).tolist() == [2, 3.5]
    torch.testing.assert_close(awm.elbo_weight(t), t / (2 * 0.49 * (1 - t)))


@pytest.mark.parametrize("rows_at_once", [1, 3, 64])
def test_the_ratio_is_one_at_the_first_step_of_a_round(rows_at_once):
    _, records = run("awm", Bright(), groups=GroupConfig(per_prompt=4, rows_at_once=rows_at_once), steps=4)
    assert [r.values["ratio"] for r in records[::2]] == [1, 1]
    assert all(r.values["ratio"] != 1 for r in records[1::2])
    assert records[0].values["from_base"] == 0 and records[1].values["from_base"] > 0


# both


@pytest.mark.parametrize("name", METHODS)
def test_the_reward_rises(name):
    generator = GaussianFlow(10, (2, 1, 1))
    generator.codec = Middle()
    groups, optimiser = GroupConfig(per_prompt=32), OptimiserConfig(0.1, max_grad_norm=math.inf)
    _, records = run(name, Bright(), generator, groups, steps=24, optimiser=optimiser)
    assert records[-1].values["reward"] > records[0].values["reward"] + 0.2


@pytest.mark.parametrize("name", METHODS)
def test_equal_rewards_teach_nothing(name):
    generator, records = run(name, Constant(), kl_weight=0.0)
    assert records[0].values["gradient_norm"] == pytest.approx(0, abs=1e-6)
    if name == "awm":
        assert all(
            torch.equal(p, q) for p, q in zip(generator.network.parameters(), tiny_flow().network.parameters())
        )


@pytest.mark.parametrize("name", METHODS)
def test_pieces_give_the_gradient_of_the_whole(name):
    norms = []
    for rows_at_once in (1, 3, 64):
        _, records = run(name, Bright(), groups=GroupConfig(per_prompt=4, rows_at_once=rows_at_once), steps=1)
        norms.append(records[0].values["gradient_norm"])
    assert norms[0] == pytest.approx(norms[2], rel=1e-3) and norms[1] == pytest.approx(norms[2], rel=1e-3)


def test_a_round_asks_for_groups_side_by_side():
    ask = asked(PROMPTS * 10, 3, 4, seed=1, number=2)
    assert ask.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert all(len(set(ask.rows[k : k + 4].tolist())) == 1 for k in (0, 4, 8)) and len(set(ask.seeds.tolist())) == 12
    assert not torch.equal(ask.seeds, asked(PROMPTS * 10, 3, 4, seed=1, number=3).seeds)
    with pytest.raises(TastemakerError, match="no prompts"):
        asked([], 3, 4, 0, 0)


def test_noising_again_is_the_same_in_any_piece():
    generator, kept = tiny_flow(), Kept(tensors={"x1": torch.randn(5, 3, 16, 16)})
    whole, parts = (noised(generator, kept, size, 2, 7, 3) for size in (64, 2))
    assert [len(p.rows) for p in whole] == [5, 5] and [len(p.rows) for p in parts] == [2, 2, 1] * 2
    for name in ("rows", "x1", "x0", "time", "x"):
        torch.testing.assert_close(*(torch.cat([getattr(p, name) for p in found]) for found in (whole, parts)))
    t = whole[0].time[:, None, None, None]
    torch.testing.assert_close(whole[0].x, t * whole[0].x1 + (1 - t) * whole[0].x0)
    condition = generator.prepare(Condition.of(["a photo of a cat"] * 5))
    assert whole[1].velocity_of(generator, condition).shape == (5, 3, 16, 16)
    assert not torch.equal(whole[0].x0, whole[1].x0)
