"""Rewards by name, and the user's own from a file: what works, and each mistake in one sentence."""

import pytest
import torch

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.protocols import Reward
from tastemaker.records import Prompt
from tastemaker.rewards.custom import load_custom
from tastemaker.rewards.table import REWARDS, load_reward, load_rewards
from tastemaker.sampling import score

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PROMPTS = [Prompt("a"), Prompt("bb"), Prompt("ccc")]

FILE = """
from dataclasses import dataclass
import torch

def score(images, prompts):
    return images.mean((1, 2, 3))
score.differentiable = True

def words(images, prompts):
    return [float(len(p.text)) for p in prompts]

def wrong(images, prompts):
    return images.mean()

def breaks(images, prompts):
    raise RuntimeError("no network")

@dataclass
class Bright:
    name: str = "bright"
    differentiable: bool = True
    range: tuple = (0.0, 1.0)
    def score(self, images, prompts):
        return images.amax((1, 2, 3))

class Needs:
    def __init__(self, path): ...

ready = Bright("ready")
number = 3
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "my_reward.py").write_text(FILE)
    return str(tmp_path / "my_reward.py")


def test_a_function_becomes_a_reward(mine):
    reward = load_reward(mine + ":score")
    assert isinstance(reward, Reward) and reward.name == "my_reward" and reward.differentiable
    assert reward.provenance.model == "my_reward.py:score" and len(reward.provenance.weight_hash) == 64
    torch.testing.assert_close(reward.score(IMAGES, PROMPTS), IMAGES.mean((1, 2, 3)))
    assert load_reward(mine).name == "my_reward"  # `score` may be left out


def test_a_list_a_class_and_an_object(mine):
    words = load_reward(mine + ":words")
    assert words.name == "words" and not words.differentiable
    assert score([words], IMAGES, PROMPTS)[:, 0].tolist() == [1, 2, 3]
    for attribute, called in (("Bright", "bright"), ("ready", "ready")):
        reward = load_reward(f"{mine}:{attribute}")
        assert reward.name == called and reward.range == (0.0, 1.0) and reward.differentiable
        assert torch.equal(reward.score(IMAGES, PROMPTS), IMAGES.amax((1, 2, 3)))


def test_wrong_shape_and_failure_are_named_when_scoring(mine):
    with pytest.raises(TastemakerError, match=r"'wrong'.*\(3,\).*\(\)"):
        score([load_reward(mine + ":wrong")], IMAGES, PROMPTS)
    with pytest.raises(TastemakerError, match="'breaks' raised RuntimeError: no network"):
        score([load_reward(mine + ":breaks")], IMAGES, PROMPTS)


def test_mistakes_in_the_file_are_one_sentence(mine, tmp_path):
    with pytest.raises(UnknownName, match="my_reward.py 'scor'; nearest known: score"):
        load_custom(mine + ":scor")
    with pytest.raises(TastemakerError, match="neither a function"):
        load_custom(mine + ":number")
    with pytest.raises(TastemakerError, match="Needs could not be made without arguments"):
        load_custom(mine + ":Needs")
    with pytest.raises(TastemakerError, match="no file .*absent.py"):
        load_custom(str(tmp_path / "absent.py"))
    for text, words in (("x = 1\nimport nothing_of_this_name\n", "line 2 raised ModuleNotFoundError"),
                        ("x = 1\ny = (\n", "line 2 raised SyntaxError")):  # fmt: skip
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(TastemakerError, match=f"bad.py {words}"):
            load_custom(str(tmp_path / "bad.py"))


@pytest.mark.parametrize("name", ["sharpness", "harmony", "compressibility"])
def test_names_load_without_a_path(name):
    assert load_reward(name).name == name
    with pytest.raises(TastemakerError, match="takes no path"):
        load_reward(name + ":somewhere")


def test_unknown_names_and_doubles(mine):
    with pytest.raises(UnknownName, match="'sharpnes'; nearest known: sharpness"):
        load_reward("sharpnes")
    with pytest.raises(UnknownName, match="FILE.py:NAME"):
        load_reward("sharpnes:path")
    assert [r.name for r in load_rewards("sharpness, harmony")] == ["sharpness", "harmony"]
    with pytest.raises(TastemakerError, match="two rewards are called 'harmony'"):
        load_rewards(["harmony", "harmony"])


def test_a_reward_with_weights_asks_for_its_path(monkeypatch):
    monkeypatch.setitem(REWARDS, "weighted", lambda path: path)
    assert load_reward("weighted:some/file") == "some/file"
    with pytest.raises(TastemakerError, match="weighted:PATH"):
        load_reward("weighted")


def test_an_object_keeps_its_questions_of_a_verifier(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Judge:\n"
        "    def score(self, images, prompts):\n        return images.mean((1, 2, 3))\n"
        "    def clear(self, images, prompts, progress):\n        return progress\n"
    )
    judge = load_reward(f"{tmp_path / 'mine.py'}:Judge")
    assert judge.clear(None, [], 0.25) == 0.25 and not hasattr(judge, "potential")
