"""Training of a verifier: the losses by hand, the shares of a batch, and a judge that learns what it is shown."""

import math

import pytest
import torch
from small import tiny_clip

from tastemaker.algorithms.judge import (
    SHARES,
    Config,
    Rows,
    answer_loss,
    balanced,
    fault_loss,
    losses,
    together,
    train,
    validate,
)
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.selection import Selection
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt
from tastemaker.rewards.tiny_judge import JudgeConfig, TinyJudge

WORDS = ("cat", "dog", "key", "car")


def test_losses_by_hand():
    odds = torch.tensor([[0.0, 2.0, -1.0]])
    answer = torch.tensor([True, True, False])
    expected = [math.log(2), math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))]
    torch.testing.assert_close(answer_loss(odds, answer), torch.tensor([expected]))
    wrong = torch.tensor([[1, 0, -1], [-1, -1, -1]], dtype=torch.int8)
    found = fault_loss(torch.tensor([[[2.0, 1.0, 9.0], [5.0, 5.0, 5.0]]]), wrong)
    torch.testing.assert_close(found, torch.tensor([[(expected[1] + math.log(1 + math.e)) / 2, 0.0]]))


def rows_of(count, seed=0):
    """Bright pictures are right, whatever is asked; of dark ones the fifth word and every region are wrong."""
    generator = torch.Generator().manual_seed(seed)
    question = torch.arange(count) % 3
    answer = torch.rand(count, generator=generator) < 0.5
    images = 0.1 * torch.rand(count, 3, 16, 16, generator=generator)
    images += torch.where(answer, 0.8, 0.1).reshape(-1, 1, 1, 1)
    texts = tuple(Prompt(f"a photo of a {WORDS[k % 4]}") for k in range(count))
    words = torch.full((count, 12), -1, dtype=torch.int8)
    words[:, 4] = (~answer).to(torch.int8)
    places = (~answer).to(torch.int8)[:, None].expand(-1, 4).clone()
    return Rows((images * 255).byte(), texts, question, answer, words, places)


def test_a_batch_has_the_shares_of_its_recipe():
    rows = rows_of(60)
    for recipe, shares in SHARES.items():
        drawn = rows.question[balanced(rows.question, recipe, 20, 0, 3)]
        assert torch.bincount(drawn, minlength=3).tolist() == [round(20 * s) for s in shares]
    assert torch.equal(balanced(rows.question, "parm", 20, 0, 3), balanced(rows.question, "parm", 20, 0, 3))
    assert not torch.equal(balanced(rows.question, "parm", 20, 0, 3), balanced(rows.question, "parm", 20, 0, 4))
    assert len(balanced(rows.question, "parm", 7, 0, 0)) == 7
    with pytest.raises(TastemakerError, match="needs rows of 'clear'"):
        balanced(torch.zeros(5, dtype=torch.int64), "parm", 10, 0, 0)


def quick(**more):
    given = {"steps": 40, "batch_size": 24, "members": 2, "width": 32, "depth": 1, "validate_every": 10,
             "optimiser": OptimiserConfig(2e-3, warmup_steps=5)}  # fmt: skip
    return Config(**(given | more))


def judge_of(config, seed=0):
    return TinyJudge.new(tiny_clip(16), JudgeConfig(config.width, config.depth, config.members), seed)


@pytest.mark.parametrize("recipe", ["orm", "parm++"])
def test_a_judge_learns_what_it_is_shown(recipe):
    config = quick(recipe=recipe)
    judge = judge_of(config)
    judge.network.requires_grad_(True)
    selection = Selection(begin(judge.network, config.optimiser))
    held_out = rows_of(60, seed=1)
    before = validate(judge, held_out, config)
    records = list(train(judge, rows_of(120), held_out, config, selection))
    selection.keep_best()
    after = validate(judge, held_out, config)
    assert after["validation_loss"] < before["validation_loss"] / 2 and after["score_accuracy"] > 0.95
    assert records[-1].step == 40 and "validation_loss" in records[9].values
    assert set(after) - {"validation_loss"} == (
        {"score_accuracy"} if recipe == "orm" else {"score_accuracy", "clear_accuracy", "potential_accuracy"}
    )
    judge.network.eval()
    bright, dark = torch.full((1, 3, 16, 16), 0.85), torch.full((1, 3, 16, 16), 0.15)
    prompt = [Prompt("a photo of a cat")]
    assert float(judge.score(bright, prompt)) > 0 > float(judge.score(dark, prompt))
    if recipe == "parm++":
        assert "cat" in judge.critique(dark, prompt)[0] and float(judge.faults(dark, prompt).min()) > 0.5
        assert float(judge.faults(bright, prompt).max()) < 0.5


def test_bags_make_members_differ_and_weights_count():
    config, rows = quick(), rows_of(12)
    judge = judge_of(config)
    loss, figures = losses(judge, rows, config)
    bag = torch.tensor([[0.0], [2.0]]).expand(2, 12)
    weighed, _ = losses(judge, rows, config, bag)
    torch.testing.assert_close(weighed, loss * bag)
    assert loss.shape == (2, 12) and 0 <= figures["accuracy"] <= 1


def test_rows_are_taken_and_joined():
    rows = rows_of(9)
    both = together([rows.take(torch.tensor([0, 3])), rows.take(torch.tensor([5]))])
    assert len(both) == 3 and both.prompts[2] == rows.prompts[5] and torch.equal(both.images[1], rows.images[3])


@pytest.mark.parametrize(
    "given, sentence",
    [({"recipe": "vote"}, "recipe"), ({"prompts": 2}, "prompts >= 4"), ({"width": 40}, "multiple of 32"),
     ({"validation_share": 1.0}, "validation_share"), ({"members": 0}, "members")],
)  # fmt: skip
def test_settings_are_checked(given, sentence):
    with pytest.raises((TastemakerError, UnknownName), match=sentence):
        Config(**given)
