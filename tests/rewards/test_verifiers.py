"""Verifiers behind an endpoint, from any reward, remembered and pessimistic: answers, turns, NaN with its reason."""

import math
import warnings

import pytest
import torch
from judge_server import brightness, listed, reply, serving

from tastemaker.errors import TastemakerError
from tastemaker.records import Ledger, Prompt, Provenance
from tastemaker.rewards import questions
from tastemaker.rewards.cached import Cached
from tastemaker.rewards.endpoint import Endpoint
from tastemaker.rewards.ensemble import Ensemble, pessimistic
from tastemaker.rewards.orm import EndpointVerifier
from tastemaker.rewards.table import load_reward
from tastemaker.rewards.zero_shot import ZeroShot
from tastemaker.search.walk import Walk

HALF = torch.tensor([0.5, 0.5])


@pytest.fixture
def server():
    with serving() as made:
        yield made


def verifier(server, **more):
    return EndpointVerifier(Endpoint.of(server.url, pause=0.01, tries=2, **more).named(), "orm")


def grey(*levels):
    return torch.stack([torch.full((3, 6, 8), level) for level in levels])


def test_each_task_is_its_own_conversation_and_potential_a_second_turn(server):
    judge, prompts = verifier(server), [Prompt("a red cat"), Prompt("a dog")]
    assert torch.allclose(judge.score(grey(0.2, 0.8), prompts), torch.tensor(math.log(6)))
    for values in (judge.clear(grey(0.2, 0.8), prompts, HALF), judge.potential(grey(0.2, 0.8), prompts, HALF)):
        assert torch.allclose(values, torch.tensor(6 / 7))  # of yes against no
    said = [a["messages"] for a, _ in server.asked if "red cat" in str(a)]
    turns = {len(m): [part["content"] for part in m] for m in said[1:]}
    first, answer, second = turns[3]
    assert first[1]["text"] == questions.CLARITY.format("a red cat") == turns[1][0][1]["text"]
    assert answer == "yes" and second == [{"type": "text", "text": questions.POTENTIAL}]
    assert [len([c for c in one if c["type"] == "image_url"]) for one in (first, second)] == [1, 0]
    both = judge.judge(grey(0.2, 0.8), prompts, ["Is it grey?", "Is it red?"])
    assert both.shape == (2, 2) and torch.allclose(both, torch.tensor(6 / 7))
    assert load_reward(f"prm:{server.url}#judge").name == "prm"
    load_reward(f"prm:{server.url}#judge").potential(grey(0.5), prompts[:1], HALF[:1])
    assert server.asked[-1][0]["messages"][0]["content"][1]["text"] == questions.PROCESS.format("a red cat")


def test_a_critique_follows_a_no(server):
    server.script = lambda asked, times: (200, {"choices": [{"message": {"content": " The cat is blue. "}}]})
    assert verifier(server).critique(grey(0.5), [Prompt("a red cat")]) == ["The cat is blue."]
    asked = server.asked[0][0]
    assert [m["role"] for m in asked["messages"]] == ["user", "assistant", "user"]
    assert asked["messages"][1]["content"] == "no" and "logprobs" not in asked
    server.script = lambda asked, times: (400, {"error": "too long"})
    judge = verifier(server)
    assert judge.critique(grey(0.4), [Prompt("a red cat")]) == [""] and "HTTP 400" in next(iter(judge.unanswered))


def test_what_has_no_answer_is_nan_and_the_ledger_says_why(server):
    def script(asked, times):
        level = brightness(asked)
        if level < 0.3:
            return 500, {"error": "always"}
        return 200, reply(listed(perhaps=1.0)) if level < 0.6 else reply(listed(yes=0.9, no=0.05))

    server.script = script
    judge, ledger = verifier(server), Ledger()

    class Bare:
        network, plan = torch.nn.Linear(1, 1), None

    walk = Walk(Bare(), judge, ledger, 8)
    with pytest.warns(UserWarning, match="no answer for 2 of 3 pictures; the first: HTTP 500"):
        values = walk.score(grey(0.1, 0.5, 0.9), [Prompt("x")] * 3)
    assert values.isnan().tolist() == [True, True, False]
    assert len(ledger.unanswered) == 2 and sum(ledger.unanswered.values()) == 2
    assert any("neither yes nor no" in reason for reason in ledger.unanswered) and not judge.unanswered
    broken = grey(0.9)
    broken[0, 0, 0, 0] = math.nan
    with pytest.warns(UserWarning, match="not finite"):
        assert judge.score(broken, [Prompt("x")]).isnan().all()


class Counting:
    """A verifier that counts what it is asked."""

    name, differentiable, range, provenance = "counting", False, (0.0, 1.0), Provenance("counting")

    def __init__(self, offset=0.0):
        self.asked, self.offset = [], offset

    def score(self, images, prompts):
        self.asked.append(("score", len(images)))
        return images.mean((1, 2, 3)) + self.offset

    def potential(self, images, prompts, progress):
        self.asked.append(("potential", len(images)))
        return torch.where(images.mean((1, 2, 3)) > 0.5, torch.nan, 0.25)

    def critique(self, images, prompts):
        self.asked.append(("critique", len(images)))
        return [f"not {p.text}" for p in prompts]


def test_an_answer_is_remembered_by_content_prompt_and_question(tmp_path):
    inner, images = Counting(), grey(0.2, 0.8, 0.2)
    cached, prompts = Cached(inner, tmp_path / "known.jsonl"), [Prompt("a"), Prompt("a"), Prompt("a")]
    for _ in range(2):
        torch.testing.assert_close(cached.score(images, prompts), torch.tensor([0.2, 0.8, 0.2]))
    assert inner.asked == [("score", 2)] and cached.computed == 2  # the third is the first again
    cached.score(images[:1], [Prompt("b")])
    assert inner.asked[-1] == ("score", 1) and cached.computed == 3
    for _ in range(2):
        assert cached.potential(images[:2], prompts[:2], HALF)[0] == 0.25
        assert cached.critique(images[:2], prompts[:2]) == ["not a", "not a"]
    assert inner.asked.count(("potential", 1)) == 1 and inner.asked.count(("potential", 2)) == 1  # NaN is asked again
    assert inner.asked.count(("critique", 2)) == 1 and not hasattr(cached, "clear") and not hasattr(cached, "faults")
    with (tmp_path / "known.jsonl").open("a") as file:
        file.write('["cut off')
    again = Cached(Counting(), tmp_path / "known.jsonl")
    torch.testing.assert_close(again.score(images, prompts), torch.tensor([0.2, 0.8, 0.2]))
    assert again.computed == 0 and again.verifier.asked == []


def test_a_reward_becomes_a_verifier_of_previews():
    judge = ZeroShot(Counting(), 0.5, middle=0.5, spread=0.1)
    images, prompts = grey(0.4, 0.5), [Prompt("a")] * 2
    assert judge.clear(images, prompts, torch.tensor([0.49, 0.5])).tolist() == [0, 1]
    torch.testing.assert_close(judge.potential(images, prompts, HALF), torch.tensor([-1.0, 0.0]).sigmoid())
    torch.testing.assert_close(judge.score(images, prompts), torch.tensor([0.4, 0.5]))
    for more in ({"clear_from": 1.5}, {"spread": 0.0}):
        with pytest.raises(TastemakerError, match="clear_from in"):
            ZeroShot(Counting(), **more)


def test_disagreement_counts_against_a_picture():
    answers = torch.tensor([[1.0, 0.0, 2.0], [1.0, 2.0, math.nan]])
    expected = torch.tensor([1.0, 0.0, math.nan])
    torch.testing.assert_close(pessimistic(answers, 1.0), expected, equal_nan=True)
    judge = Ensemble([Counting(), Counting(offset=0.2)], kappa=0.5)
    torch.testing.assert_close(judge.score(grey(0.4), [Prompt("a")]), torch.tensor([0.5 - 0.05]))
    torch.testing.assert_close(judge.potential(grey(0.4), [Prompt("a")], HALF[:1]), torch.tensor([0.25]))
    assert not hasattr(judge, "clear") and judge.name == "pessimistic(counting+counting)"
    with pytest.raises(TastemakerError, match="expected pessimistic:KAPPA"):
        load_reward("pessimistic:1.0:sharpness")
    with pytest.raises(TastemakerError, match="expected pessimistic:KAPPA"):
        load_reward("pessimistic:much:sharpness+harmony")
    assert load_reward("pessimistic:1.0:sharpness+harmony").score(
        torch.rand(2, 3, 32, 32), [Prompt("a")] * 2
    ).shape == (2,)


def test_an_exploitable_verifier_is_less_exploited_by_a_pessimistic_pair():
    """Each member loves its own one picture in a hundred for no reason; their pessimistic mean does not."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(200, 100, generator=generator)
    members = []
    for k in range(2):
        fooled = torch.rand(200, 100, generator=torch.Generator().manual_seed(k + 1)) < 0.01
        members.append(torch.where(fooled, 50.0, true))
    rows = torch.arange(200)
    alone = true[rows, members[0].argmax(1)].mean()
    careful = true[rows, pessimistic(torch.stack(members), 1.0).argmax(1)].mean()
    assert float(careful) > float(alone) + 1 and float(careful) > 2


def test_warnings_do_not_hide():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Cached(Counting()).score(grey(0.1), [Prompt("a")]).shape == (1,)
