"""One function guides: its formula, its cost, and where the other branch comes from."""

import pytest
import torch
from small import tiny_flow

from tastemaker.generators.flow import FlowGenerator, PixelCodec
from tastemaker.generators.guidance import guide, guided, negative_of
from tastemaker.protocols import Condition, Prompt
from tastemaker.records import Ledger
from tastemaker.search.ledger import metered

WORDS = ["a photo of a red cat", "a photo of two dogs", "a photo of a key"]


class Recorder:
    """A velocity that depends on the condition alone: the length of the prompt plus the targets that are said."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, condition):
        self.calls.append(condition)
        wished = 0.0 if condition.targets is None else condition.targets.nan_to_num(-7.0).sum(1)
        return x + (torch.tensor([float(len(p.text)) for p in condition.prompts]) + wished)[:, None]


def run(condition):
    predict = Recorder()
    out = guided(predict, lambda c: c, torch.zeros(len(condition), 2), torch.zeros(len(condition)), condition)
    return out[:, 0].tolist(), predict.calls


def test_the_formula():
    minus, plus = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[3.0], [3.0], [3.0]])
    assert guide(minus, plus, torch.tensor([0.0, 1.0, 4.0]))[:, 0].tolist() == [1.0, 3.0, 9.0]
    w = 3.0  # MIRO's and Show-o's scale: (1 + w) out+ - w out-
    torch.testing.assert_close(guide(minus, plus, torch.full((3,), w + 1)), (1 + w) * plus - w * minus)


def test_no_guidance_is_one_evaluation_and_any_other_two_in_one_call():
    out, calls = run(Condition.of(["abc", "de"], 1.0))
    assert out == [3.0, 2.0] and [len(c) for c in calls] == [2]
    mixed = Condition((Prompt("abc"), Prompt("de"), Prompt("f")), torch.tensor([3.0, 1.0, 0.0]))
    out, calls = run(mixed)
    assert out == [9.0, 2.0, 0.0] and [len(c) for c in calls] == [5]


def test_negative_prompts_and_targets():
    prompts, wish = ["abc", "de"], torch.tensor([[10.0], [20.0]])
    null = Condition.of(prompts, 2.0, targets=wish)
    assert negative_of(null).prompts == (Prompt(""),) * 2 and negative_of(null).targets.isnan().all()
    assert run(null)[0] == [2 * 13 + 7.0, 2 * 22 + 7.0]  # the missing target has a token of its own
    said = Condition.of(prompts, 2.0, targets=wish, negative=Condition.of(["x", "xyz"], targets=wish - 5))
    assert run(said)[0] == [26 - (1 + 5.0), 44 - (3 + 15.0)]
    untold = Condition.of(prompts, 2.0, targets=wish, negative=Condition.of(["x", "xyz"]))
    assert run(untold)[0] == [26 - (1 - 7.0), 44 - (3 - 7.0)]
    only_negative = Condition.of(prompts, 2.0, negative=Condition.of(["x", "xyz"], targets=wish))
    assert run(only_negative)[0] == [2 * (3 - 7.0) - 11, 2 * (2 - 7.0) - 23]
    mixed = Condition((Prompt("abc"), Prompt("de")), torch.tensor([1.0, 2.0]), negative=Condition.of(["x", "xyz"]))
    assert run(mixed)[0] == [3.0, 1.0]


def test_the_guidance_of_a_generator_is_the_formula_over_its_velocities():
    generator = tiny_flow()
    g, negative = 4.0, Condition.of(["a photo of a crown"] * 3)
    for chosen in (None, negative):
        condition = Condition.of(WORDS, g, negative=chosen)
        state = generator.start(condition, torch.arange(3))
        t = torch.full((3,), 0.3)
        with torch.no_grad():
            plus = generator.velocity(state.x, t, Condition.of(WORDS))
            minus = generator.velocity(state.x, t, chosen or Condition.of([""] * 3))
            found = generator.guided_velocity(condition)(state.x, t)
        torch.testing.assert_close(found, minus + g * (plus - minus), rtol=1e-4, atol=1e-4)
        assert (found - plus).abs().max() > 1e-3


@pytest.mark.parametrize("guidance, rows", [(1.0, 3), (2.5, 6)])
def test_the_network_sees_as_many_rows_as_the_ledger_says(guidance, rows):
    generator, ledger = tiny_flow(), Ledger()
    state = generator.start(Condition.of(WORDS, guidance), torch.arange(3))
    with metered(generator.network, ledger):
        generator.advance(state)
    assert ledger.network_evaluations == rows
    generator.advance(state)
    assert ledger.network_evaluations == rows  # no longer counted


def test_text_is_encoded_once_a_trajectory():
    class Counting(FlowGenerator):
        encoded = 0

        def encode_text(self, condition):
            self.encoded += 1
            return {"length": torch.tensor([len(p.text) for p in condition.prompts])}

        def predict_velocity(self, x, t, condition):
            return x * condition.cache["length"][:, None]

    generator = Counting(torch.nn.Linear(1, 1), (2,), PixelCodec())
    state = generator.start(Condition.of(WORDS, 2.0), torch.arange(3))
    for _ in range(4):
        state = generator.advance(state)
    assert generator.encoded == 2  # the prompts and the null condition
