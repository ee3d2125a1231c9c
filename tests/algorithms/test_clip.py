"""Contrastive training: the loss against a plain loop, negatives that are false, towers that learn."""

import math

import pytest
import torch
from small import tiny_clip
from torch.nn import functional as F

from tastemaker.algorithms.clip import Config, contrastive, train
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.data.batches import Batches
from tastemaker.encoders.tiny_clip import load_tiny_clip, resize
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.object_rules import judge
from tastemaker.records import Prompt
from tastemaker.rewards.alignment import Alignment
from tastemaker.weights import shipped
from tastemaker.workflows.train import train_clip, true_world, world_negatives
from tastemaker.world.dataset import clean_world
from tastemaker.world.scenes import compose

TINY = ["width=32", "depth=1", "size=16", "batch_size=4", "steps=4", "compile=false"]


def vectors(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_against_a_plain_loop():
    image, text, other = vectors(4, 6), vectors(4, 6, seed=1), vectors(5, 6, seed=2)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    scale = torch.tensor(3.0)
    found = contrastive(image, text, other, same, scale)
    for i in range(4):
        row = [3 * float(image[i] @ t) for t in [*text, *other]]
        column = [3 * float(image[j] @ text[i]) for j in range(4)]
        partners = [j for j in range(4) if same[i, j]]
        by_image = -sum(row[j] - math.log(sum(map(math.exp, row))) for j in partners) / len(partners)
        by_text = -sum(column[j] - math.log(sum(map(math.exp, column))) for j in partners) / len(partners)
        assert float(found[i]) == pytest.approx((by_image + by_text) / 2, rel=1e-5)


def test_without_negatives_and_twins_it_is_clips():
    image, text, scale = vectors(5, 8), vectors(5, 8, seed=1), torch.tensor(10.0)
    logits, aim = scale * image @ text.T, torch.arange(5)
    expected = (F.cross_entropy(logits, aim, reduction="none") + F.cross_entropy(logits.T, aim, reduction="none")) / 2
    torch.testing.assert_close(contrastive(image, text, text[:0], torch.eye(5).bool(), scale), expected)


def test_hard_negatives_are_false_of_the_scene_they_were_made_for():
    world = clean_world(4)
    seeds_and_captions = [(k, world.example(k).caption) for k in range(300)]
    from tastemaker.randomness import mix

    for round_ in range(3):
        wrong = world_negatives([c for _, c in seeds_and_captions], round_)
        for (k, true), false in zip(seeds_and_captions, wrong):
            scene = compose(true.spec, mix(4, k))
            boxes = {i.name: [j.box for j in scene.items if j.name == i.name] for i in scene.items}
            assert judge(boxes, true.spec).correct and not judge(boxes, false.spec).correct, (true.text, false.text)
    assert world_negatives([seeds_and_captions[0][1]], 1) == world_negatives([seeds_and_captions[0][1]], 1)


def test_the_data_for_towers_has_true_captions():
    world = true_world(0, 32)
    found = [world.example(k) for k in range(200)]
    assert all(e.caption.text == e.truth.text for e in found) and any(e.degraded for e in found)


def test_towers_learn_a_batch():
    clip = tiny_clip()
    clip.network.requires_grad_(True)
    batch = Batches(clean_world(0, 16), 8).at(0)

    class One:
        def from_step(self, step, workers=0):
            while True:
                yield batch

    state = begin(clip.network, OptimiserConfig(learning_rate=3e-3, ema_decay=0.0))
    config = Config(steps=100, negatives=1, compile=False)
    losses = [r.values["loss"] for r in train(clip, One(), world_negatives, config, state)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_a_run_leaves_towers_that_load(tmp_path):
    run = train_clip(None, TINY, tmp_path / "run")
    clip = load_tiny_clip(run.folder)
    assert clip.recipe["steps"] == 4 and clip.provenance.weight_hash
    again = train_clip(None, TINY, tmp_path / "again")
    first, second = clip.network.state_dict(), load_tiny_clip(again.folder).network.state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    for word, sentence in (
        ("width=33", "multiple of 32"),
        ("size=20", "multiple of 8"),
        ("negatives=-1", "negatives"),
    ):
        with pytest.raises(TastemakerError, match=sentence):
            train_clip(None, [*TINY, word], tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_vectors_have_length_one_and_pictures_are_independent():
    clip = tiny_clip()
    images = torch.rand(5, 3, 16, 16)
    assert clip.features(images).shape == (5, 32)
    torch.testing.assert_close(clip.image_vectors(images).norm(dim=1), torch.ones(5))
    torch.testing.assert_close(
        clip.image_vectors(images[3:4])[0], clip.image_vectors(images)[3], atol=1e-6, rtol=1e-5
    )
    assert torch.equal(resize(images, 16), images) and resize(images, 8).shape == (5, 3, 8, 8)


def test_alignment_is_ten_times_the_cosine_and_differentiable():
    clip = tiny_clip()
    reward = Alignment(clip=clip)
    prompts = [Prompt("a photo of a cat"), Prompt("a photo of two dogs")]
    images = torch.rand(2, 3, 24, 24, requires_grad=True)
    scores = reward.score(images, prompts)
    expected = 10 * F.cosine_similarity(clip.image_vectors(images), clip.text_vectors(prompts))
    torch.testing.assert_close(scores, expected)
    scores.sum().backward()
    assert images.grad.abs().sum((1, 2, 3)).min() > 0 and not any(p.requires_grad for p in clip.network.parameters())
    with pytest.raises(UnknownName, match="unknown prompt word 'zebra'"):
        reward.score(images, [Prompt("a zebra")] * 2)


@pytest.mark.skipif(not shipped("tiny-clip").is_file(), reason="the shipped weights are not there")
def test_the_shipped_one_tells_true_captions_from_changed_ones():
    world = clean_world(77)
    images, captions = Batches(world, 96).at(0)
    reward = Alignment()
    with torch.no_grad():
        true, false = reward.score(images, captions), reward.score(images, world_negatives(captions, 0))
    assert (true > false).float().mean() > 0.85
