"""Yes and no from an endpoint: the arithmetic, a local server that misbehaves, and pictures that arrive whole."""

import math
import threading

import pytest
import torch
from judge_server import brightness, listed, reply, serving

from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt
from tastemaker.rewards.endpoint import KEY, Endpoint
from tastemaker.rewards.orm import load_orm
from tastemaker.rewards.questions import OUTCOME as ORM
from tastemaker.rewards.table import load_reward
from tastemaker.rewards.vqa import VQA, Vqa, load_vqa
from tastemaker.rewards.yes_no import answer_log_prob, answers, log_odds, sequence_probability


def test_spellings_are_added_and_the_rest_is_bounded():
    yes, no = answers(listed(Yes=0.4, yes=0.1, _Yes=0.2, No=0.1, no=0.05, the=0.1))
    assert math.isclose(math.exp(yes), 0.7) and math.isclose(math.exp(no), 0.15)
    yes, no = answers({"Ġyes": math.log(0.5), "▁No": math.log(0.25)})
    assert math.isclose(math.exp(yes), 0.5) and math.isclose(math.exp(no), 0.25)
    yes, no = answers(listed(No=0.9, the=0.06))  # yes has at most what is left, 0.04
    assert math.isclose(math.exp(yes), 0.04, rel_tol=1e-6)
    yes, no = answers(listed(yes=0.5, the=0.01))  # no has at most what the last listed one has
    assert math.isclose(math.exp(no), 0.01, rel_tol=1e-6)
    assert all(map(math.isnan, answers(listed(maybe=0.9, yesterday=0.1))))
    assert answers({"yes": 0.0, "no": -9999.0}) == (0.0, -9999.0)


def test_logits_far_from_zero_lose_nothing():
    logits = torch.tensor([[1e4, 1e4 - 2.0, 1e4 - 50.0]], dtype=torch.float64)
    yes, no = answer_log_prob(logits, [0]), answer_log_prob(logits, [1])
    torch.testing.assert_close(log_odds(yes, no), torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(answer_log_prob(logits, [0, 1, 2]).exp(), torch.ones(1, dtype=torch.float64))
    two = torch.zeros(1, 2, 4)
    torch.testing.assert_close(sequence_probability(two, [1, 2]), torch.tensor([0.25]))


@pytest.fixture
def server():
    with serving() as made:
        yield made


def fast(server, **more):
    return Vqa(Endpoint.of(server.url, pause=0.01, **more).named())


def grey(*levels):
    return torch.stack([torch.full((3, 6, 8), level) for level in levels])


def test_scores_come_from_the_first_token_and_the_request_is_as_it_must_be(server, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    vqa, orm = load_vqa(server.url), load_orm(server.url + "#judge")
    images, prompts = grey(0.2, 0.8), [Prompt("a {red} cat"), Prompt("a dog")]
    assert torch.allclose(vqa.score(images, prompts), torch.tensor(0.75))
    assert torch.allclose(orm.score(images, prompts), torch.tensor(math.log(6)))
    asked, headers = server.asked[0]
    assert asked["model"] == "judge" and asked["max_tokens"] == 1 and asked["logprobs"] and asked["temperature"] == 0
    assert asked["top_logprobs"] == 20 and headers["Authorization"] == "Bearer secret"
    texts = {a["messages"][0]["content"][1]["text"] for a, _ in server.asked}
    assert texts == {q.format(p.text) for q in (VQA, ORM) for p in prompts}
    assert "judge" in vqa.provenance.model and vqa.range == (0.0, 1.0) and not vqa.differentiable


def test_each_picture_gets_its_own_answer_and_several_are_asked_at_once(server):
    def script(asked, times):
        threading.Event().wait(0.05)
        return 200, reply({"yes": math.log(0.5 * brightness(asked)), "no": math.log(0.3)})

    server.script = script
    levels = [i / 15 for i in range(1, 13)]
    values = fast(server, workers=4).score(grey(*levels), [Prompt("x")] * 12)
    assert torch.allclose(values, torch.tensor(levels) / 2, atol=2e-3) and 2 <= server.most <= 4


def test_what_passes_is_tried_again_and_what_does_not_is_nan(server):
    def script(asked, times):
        level = brightness(asked)
        if level < 0.1:
            return 500, {"error": "always"}
        if level < 0.4:
            return (503, {}) if times < 3 else (200, reply(listed(yes=0.9)))
        if level < 0.6:
            return 400, {"error": "refused"}
        if level < 0.8:
            return 200, b"no json"
        return 200, reply(listed(perhaps=1.0))

    server.script = script
    reward = fast(server, tries=3)
    with pytest.warns(UserWarning, match="no answer for 4 of 5 pictures; the first: HTTP 500"):
        values = reward.score(grey(0.0, 0.3, 0.5, 0.7, 0.9), [Prompt("x")] * 5)
    assert values.isnan().tolist() == [True, False, True, True, True] and math.isclose(values[1], 0.9, rel_tol=1e-5)
    assert sum(reward.unanswered.values()) == 4
    assert sorted(server.seen.values()) == [1, 1, 3, 3, 3]  # refusals and odd answers are not asked again


def test_an_endpoint_that_hangs_is_left_after_its_time(server):
    server.script = lambda asked, times: (threading.Event().wait(1.0), (200, reply(listed(yes=1.0))))[1]
    with pytest.warns(UserWarning, match="no answer for 1 of 1"):
        values = fast(server, timeout=0.1, tries=2).score(grey(0.5), [Prompt("x")])
    assert values.isnan().all() and len(server.asked) == 2


def test_a_broken_picture_is_not_asked(server):
    images = grey(0.1, 0.5)
    images[0, 0, 0, 0] = float("nan")
    assert fast(server).score(images, [Prompt("x")] * 2).isnan().tolist() == [True, False]
    assert len(server.asked) == 1


def test_what_would_meet_every_picture_is_one_sentence(server):
    server.script = lambda asked, times: (401, {"error": "key"})
    with pytest.raises(TastemakerError, match="refuses the request .HTTP 401.*TASTEMAKER_API_KEY"):
        fast(server).score(grey(0.5), [Prompt("x")])
    server.script = lambda asked, times: (200, {"choices": [{"message": {"content": "yes"}}]})
    with pytest.warns(UserWarning, match="no choices"):
        assert fast(server).score(grey(0.5), [Prompt("x")]).isnan().all()
    server.script = lambda asked, times: (200, {"choices": [{"logprobs": None}]})
    with pytest.raises(TastemakerError, match="without log-probabilities"):
        fast(server).score(grey(0.5), [Prompt("x")])
    server.models = ["a", "b"]
    with pytest.raises(TastemakerError, match="serves a, b; name one"):
        load_reward(f"vqa:{server.url}")
    assert load_reward(f"orm:{server.url}#a").endpoint.model == "a"
    for where in ("file:///etc/hosts", "localhost:8000"):
        with pytest.raises(TastemakerError, match="expected the URL of an endpoint"):
            load_reward(f"vqa:{where}")
