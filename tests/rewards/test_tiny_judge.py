"""tiny-judge: what it answers, that the prefix is shared, and that it is the same from disk."""

import pytest
import torch
from small import scene_and_swapped, shaken, tiny_clip, tiny_flow

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt
from tastemaker.rewards.table import load_reward
from tastemaker.rewards.tiny_judge import (
    ALIKE,
    LEARNED,
    ODDS_OF_LIKENESS,
    JudgeConfig,
    TinyJudge,
    load_tiny_judge,
)

PROMPTS = [Prompt("a photo of a red cat"), Prompt("a photo of two dogs"), Prompt("a photo of a red cat")]


def tiny_judge(members=2, kappa=0.0, seed=0):
    judge = TinyJudge.new(tiny_clip(16), JudgeConfig(32, 1, members), seed)
    shaken(judge.network.heads, seed, 0.3)
    judge.kappa = kappa
    return judge


def pictures(count=3):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_answers_are_those_of_the_network():
    judge, images = tiny_judge(), pictures()
    odds, words, places = judge.network(images, judge.vocabulary.encode([p.text for p in PROMPTS]))
    assert odds.shape == (2, 3, 3) and words.shape == (2, 3, 12) and places.shape == (2, 3, 4)
    torch.testing.assert_close(judge.score(images, PROMPTS), odds[..., 0].mean(0))
    progress = torch.full((3,), 0.5)
    torch.testing.assert_close(judge.clear(images, PROMPTS, progress), odds[..., 1].mean(0).sigmoid())
    torch.testing.assert_close(judge.potential(images, PROMPTS, progress), odds[..., 2].mean(0).sigmoid())
    torch.testing.assert_close(judge.faults(images, PROMPTS), places.mean(0).sigmoid().reshape(3, 2, 2))
    careful = tiny_judge(kappa=2.0).score(images, PROMPTS)
    torch.testing.assert_close(careful, odds[..., 0].mean(0) - 2 * odds[..., 0].std(0, correction=0))
    asked = judge.judge(images, PROMPTS, ["a red cat", "two dogs"])
    torch.testing.assert_close(asked[:, 0], judge.score(images, [Prompt("a red cat")] * 3).sigmoid())
    learned = judge.logits(images, PROMPTS, torch.tensor([0, 2, 1]))[0]
    torch.testing.assert_close(learned, odds[:, torch.arange(3), torch.tensor([0, 2, 1])])


def test_before_it_has_learned_it_ranks_as_the_towers_do():
    clip, images = tiny_clip(16), pictures()
    judge = TinyJudge.new(clip, JudgeConfig(32, 1, 2))
    alike = (clip.image_vectors(images) * clip.text_vectors(PROMPTS)).sum(1)
    torch.testing.assert_close(judge.score(images, PROMPTS), ODDS_OF_LIKENESS * (alike - ALIKE))
    progress = torch.full((3,), 0.5)
    torch.testing.assert_close(judge.potential(images, PROMPTS, progress), judge.score(images, PROMPTS).sigmoid())
    assert (judge.clear(images, PROMPTS, progress) == 0.5).all()  # of which the words say nothing


@pytest.mark.parametrize("share, learning", [(1.0, 0), (0.5, 1), (0.0, 1)])
def test_the_towers_learn_as_far_as_they_are_told(share, learning):
    judge = tiny_judge()
    judge.network.requires_grad_(True)
    judge.freeze(share)
    towers = judge.network.towers
    for tower in (towers.image, towers.text):
        blocks = [all(p.requires_grad for p in block.parameters()) for block in tower.blocks.layers]
        assert sum(blocks) == learning
    assert all(p.requires_grad for p in judge.network.heads.parameters())
    images, question = pictures(), torch.zeros(3, dtype=torch.int64)
    judge.logits(images, PROMPTS, question)[0].sum().backward()
    learned = {name for name, p in towers.named_parameters() if p.grad is not None}
    assert bool(learned) == (share < 1) and ("image.place" in learned) == (share == 0)


def test_the_shipped_one_tells_scenes_apart():
    judge, right = load_reward("judge"), 0
    for k in range(24):
        pair, asked = scene_and_swapped(k)
        better, worse = judge.score(pair, asked).tolist()
        right += better > worse
    assert right >= 20
    progress = torch.full((2,), 0.5)
    assert judge.clear(pair, asked, progress).min() > 0.5
    assert judge.clear(pair.mean((2, 3), keepdim=True).expand_as(pair), asked, progress).max() < 0.5
    assert judge.faults(pair, asked).shape == (2, judge.grid, judge.grid)


def test_a_picture_goes_through_its_tower_once_for_all_questions():
    judge, images, seen = tiny_judge(), pictures(), []
    judge.network.towers.image.blocks.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    progress = torch.full((3,), 0.5)
    clear = judge.clear(images, PROMPTS, progress)
    assert seen == [3]
    potential = judge.potential(images[1:], PROMPTS[1:], progress[1:])
    judge.score(images.flip(0), PROMPTS), judge.critique(images, PROMPTS), judge.faults(images, PROMPTS)
    assert seen == [3]
    fresh = tiny_judge()
    torch.testing.assert_close(fresh.potential(images[1:], PROMPTS[1:], progress[1:]), potential)
    torch.testing.assert_close(fresh.clear(images, PROMPTS, progress), clear)
    judge.score(images + 0.001, PROMPTS)
    assert seen == [3, 3]  # other pictures


def test_the_critique_names_words_of_the_prompt():
    judge, images = tiny_judge(), pictures()
    for text, prompt in zip(judge.critique(images, PROMPTS), PROMPTS):
        named = text.removeprefix("not as asked: ").split(", ")
        assert named and set(named) <= set(prompt.text.split())


def test_a_broken_picture_has_no_score():
    images = pictures()
    images[1, 0, 0, 0] = float("nan")
    assert tiny_judge().score(images, PROMPTS).isnan().tolist() == [False, True, False]


def test_it_answers_what_it_has_learned():
    images, progress = pictures(), torch.full((3,), 0.5)
    whole = tiny_judge()
    for recipe, learned in LEARNED.items():
        judge = tiny_judge()
        judge = TinyJudge(judge.network, judge.vocabulary, {"config": {"recipe": recipe}})
        assert [name for name in LEARNED["parm++"] if hasattr(judge, name)] == list(learned)
        if recipe != "prm":
            torch.testing.assert_close(judge.score(images, PROMPTS), whole.score(images, PROMPTS))
            continue
        torch.testing.assert_close(judge.score(images, PROMPTS).sigmoid(), whole.potential(images, PROMPTS, progress))


def test_it_is_the_same_from_disk(tmp_path):
    judge, images = tiny_judge(), pictures()
    judge.write(tmp_path / "model.safetensors")
    loaded = load_reward(f"judge:{tmp_path}")
    torch.testing.assert_close(loaded.score(images, PROMPTS), judge.score(images, PROMPTS))
    assert loaded.provenance.weight_hash and load_tiny_judge(tmp_path, 1.0).kappa == 1.0
    with pytest.raises(UnknownName, match="zebra"):
        loaded.score(images[:1], [Prompt("a zebra")])
    tiny_flow().save(tmp_path / "flow")
    with pytest.raises(TastemakerError, match="expected 'judge'"):
        load_reward(f"judge:{tmp_path / 'flow'}")
