"""The learned reward: gradients, freezing, ensembles, files that come back the same, frozen features."""

import dataclasses

import pytest
import torch
from small import scene_and_swapped, shaken, tiny_clip

from tastemaker.encoders.low_level import LowLevel, mscn
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt
from tastemaker.rewards import feature_scorer, tiny_clip_scorer
from tastemaker.rewards.feature_scorer import CachedScorer, FeatureNetwork, FeatureScorer
from tastemaker.rewards.preference import Preference, load_preference, load_scorer
from tastemaker.rewards.tiny_clip_scorer import FrozenTowers, HeadConfig, TinyClipScorer

PROMPTS = [Prompt("a photo of a cat"), Prompt("a photo of two dogs"), Prompt("a photo of a red apple")]


def scorer(members=3, seed=0):
    """Heads whose last layers are not near 0, so that scores differ."""
    made = TinyClipScorer.new(tiny_clip(), HeadConfig(width=32, depth=1, members=members), seed)
    shaken(made.network.heads, seed + 10, 0.2)
    made.network.mean.copy_(torch.arange(members))
    made.network.std.copy_(1.0 + torch.arange(members))
    return made


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def test_the_states_are_the_towers_own(images):
    clip = tiny_clip()
    pooled, vector = clip.network.image(images)
    torch.testing.assert_close(clip.network.image.states(images)[:, 0], pooled)
    words = clip.vocabulary.encode([p.text for p in PROMPTS])
    states = clip.network.text.states(words)
    said = torch.nn.functional.normalize(clip.network.text.project(states[:, 0]), dim=-1)
    torch.testing.assert_close(said, clip.network.text(words))


def test_frozen_towers_are_read_once_and_the_heads_see_the_same(images):
    made = scorer()
    frozen = FrozenTowers(made)
    with torch.no_grad():
        torch.testing.assert_close(
            frozen.logits(frozen.read(images), PROMPTS), made.logits(images, PROMPTS), atol=0.02, rtol=0.01
        )
    made.freeze(1.0)
    frozen.logits(frozen.read(images), PROMPTS).sum().backward()
    assert all(p.grad is None for p in made.network.towers.parameters())
    assert made.network.heads[0].score.weight.grad.abs().sum() > 0
    with pytest.raises(UnknownName, match="zebra"):
        frozen.logits(frozen.read(images), [Prompt("a photo of a zebra")] * 3)


def test_the_shipped_model_prefers_what_shows_the_prompt():
    reward, right = load_preference(), 0
    for k in range(24):
        better, worse = reward.score(*scene_and_swapped(k)).tolist()
        right += better > worse
    assert right >= 20


def test_score_is_the_mean_of_standardised_members_and_spread_their_deviation(images):
    made = scorer()
    reward = Preference([made])
    with torch.no_grad():
        logits = made.logits(images, PROMPTS)
        expected = (logits - torch.arange(3.0)[:, None]) / (1 + torch.arange(3.0)[:, None])
        torch.testing.assert_close(reward.score(images, PROMPTS), expected.mean(0))
        torch.testing.assert_close(reward.spread(images, PROMPTS), expected.std(0, correction=0))
        pair = expected - expected[:, [1, 2, 0]]
        moved = [PROMPTS[k] for k in (1, 2, 0)]
        assert reward.doubt(images, images, PROMPTS).abs().max() == 0
        other = Preference([made]).members(images[[1, 2, 0]], moved)
        torch.testing.assert_close(expected[:, [1, 2, 0]], other)
        torch.testing.assert_close(pair.std(0, correction=0), (expected - other).std(0, correction=0))
    assert expected.std(0).min() > 0.01 and Preference([scorer(1)]).spread(images, PROMPTS).abs().max() == 0


def test_the_gradient_is_that_of_finite_differences(images):
    reward = Preference([scorer()])
    reward.scorers[0].network.double()
    images = images.double()[:2].requires_grad_()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def total(at):
        return sum(s.logits(at, PROMPTS[:2]).sum() for s in reward.scorers)

    (gradient,) = torch.autograd.grad(total(images), images)
    step = 1e-5
    measured = (total(images + step * direction) - total(images - step * direction)) / (2 * step)
    assert float((gradient * direction).sum().detach()) == pytest.approx(float(measured.detach()), rel=1e-5)
    assert gradient.abs().sum((1, 2, 3)).min() > 0 and reward.differentiable


def test_a_picture_is_scored_alone_as_in_a_batch(images):
    reward = Preference([scorer()])
    with torch.no_grad():
        together = reward.score(images, PROMPTS)
        alone = torch.cat([reward.score(images[k : k + 1], PROMPTS[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share, learns", [(0.0, True), (0.7, False), (1.0, False)])
def test_freezing_counts_from_the_input(share, learns):
    clip = tiny_clip()
    made = TinyClipScorer.new(clip, HeadConfig(32, 1, 1))
    made.freeze(share)
    towers = made.network.towers
    assert towers.text.word.weight.requires_grad == learns == towers.image.stem[0].weight.requires_grad
    assert towers.image.blocks.norm.weight.requires_grad == (share < 1)
    blocks = [p.requires_grad for p in towers.image.blocks.layers.parameters()]
    assert all(blocks) if share < 1 else not any(blocks)  # one block: int(0.7) of it is none
    assert all(p.requires_grad for p in made.network.heads.parameters())
    assert not towers.image.project.weight.requires_grad and not towers.log_scale.requires_grad


def test_70_per_cent_are_imagerewards_16_of_24_and_8_of_12():
    from torch import nn

    from tastemaker.rewards.freezing import Tower, freeze

    picture, words = ([nn.Linear(1, 1) for _ in range(n)] for n in (24, 12))
    freeze([Tower([nn.Linear(1, 1)], picture), Tower([], words)], 0.7)
    assert [sum(not b.weight.requires_grad for b in tower) for tower in (picture, words)] == [16, 8]


def test_files_come_back_the_same_and_join_as_an_ensemble(tmp_path, images):
    first, second = scorer(2), scorer(1, seed=4)
    digest = first.write(tmp_path / "a" / "model.safetensors")
    second.write(tmp_path / "b.safetensors")
    both = load_preference(f"{tmp_path / 'a'}+{tmp_path / 'b.safetensors'}")
    with torch.no_grad():
        expected = torch.cat([Preference([s]).members(images, PROMPTS) for s in (first, second)])
        torch.testing.assert_close(both.members(images, PROMPTS), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(both.score(images, PROMPTS), expected.mean(0))
    assert digest in both.provenance.weight_hash and not any(
        p.requires_grad for s in both.scorers for p in s.network.parameters()
    )
    with pytest.raises(UnknownName, match="unknown prompt word 'zebra'"):
        both.score(images, [Prompt("a zebra")] * 3)


def test_a_foreign_file_is_one_clear_error(tmp_path):
    tiny_clip().write(tmp_path / "clip.safetensors")
    with pytest.raises(TastemakerError, match="kind 'tiny-clip', expected 'preference'"):
        load_scorer(tmp_path / "clip.safetensors")
    with pytest.raises(TastemakerError, match="no weights at"):
        load_preference(str(tmp_path / "gone"))


class Pixels:
    """Encoders of a few numbers, to test what is built on them."""

    digest = "pixels"

    def pictures(self, images):
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)

    def prompts(self, prompts):
        return torch.tensor([[float(len(p.text)), p.text.count("a")] for p in prompts])


def feature_model():
    made = FeatureScorer.new(
        feature_scorer.HeadConfig(picture=6, prompt=2, components=4, width=8, members=2), Pixels()
    )
    shaken(made.network, 1, 0.3)
    return made


def test_features_read_before_give_the_same_scores(images):
    made = feature_model()
    words = dict(zip((p.text for p in PROMPTS), made.encoders.prompts(PROMPTS)))
    with torch.no_grad():
        cached = CachedScorer(made.network, words).logits(made.encoders.pictures(images), PROMPTS)
        torch.testing.assert_close(cached, made.logits(images, PROMPTS))
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(made.logits(images, PROMPTS).sum(), images)
    assert gradient.abs().sum((1, 2, 3)).min() > 0


def test_features_are_standardised_on_the_training_set():
    network = FeatureNetwork(dataclasses.replace(feature_model().network.config, members=1)).eval()
    rows, words = torch.randn(50, 6) * 3 + 7, torch.randn(9, 2) - 4
    network.standardise(rows, words)
    torch.testing.assert_close(network.picture_mean, rows.mean(0))
    read = ((rows - rows.mean(0)) / rows.std(0)).clamp(-5, 5) @ network.picture_basis
    torch.testing.assert_close(torch.cov(read.T), torch.eye(4), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.prompt_mean, words.mean(0))


def test_a_feature_model_refuses_other_encoders(tmp_path, monkeypatch):
    made = feature_model()
    made.write(tmp_path / "model.safetensors")
    monkeypatch.setattr(feature_scorer, "PackagedEncoders", Pixels)
    again = load_scorer(tmp_path)
    assert all(torch.equal(v, made.network.state_dict()[k]) for k, v in again.network.state_dict().items())
    monkeypatch.setattr(Pixels, "digest", "others")
    with pytest.raises(TastemakerError, match="other weights of EfficientNet-Lite0 or MiniLM"):
        load_scorer(tmp_path)


def test_mscn_is_standardised_locally_and_low_level_tells_noise_from_blur():
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(4, 1, 48, 48, generator=generator)
    x = mscn(0.2 + 0.5 * grey)
    torch.testing.assert_close(x, mscn(0.7 * grey + 0.1), atol=0.06, rtol=0.1)  # brightness and contrast are gone
    assert abs(float(x.mean())) < 0.05 and 0.6 < float(x.std()) < 1.2
    ramp = torch.linspace(0.2, 0.8, 48).expand(1, 3, 48, 48)
    noisy = (ramp + 0.1 * torch.randn(1, 3, 48, 48, generator=generator)).requires_grad_()
    features = LowLevel().features(torch.cat([ramp, noisy]))
    assert features.shape == (2, LowLevel.dim) and features.isfinite().all()
    fine = features[:, LowLevel.dim - 3 * 19 - 1]  # the share of the finest ring, see the order in `features`
    (gradient,) = torch.autograd.grad(features.sum(), noisy)
    assert gradient.isfinite().all() and bool(fine[1] > fine[0])


def test_heads_without_training_begin_near_the_towers_cosine(images):
    clip = tiny_clip()
    with torch.no_grad():
        cosine = (clip.image_vectors(images) * clip.text_vectors(PROMPTS)).sum(-1)
        logits = tiny_clip_scorer.TinyClipScorer.new(clip, HeadConfig(32, 1, 2)).logits(images, PROMPTS)
    assert (logits - cosine).abs().max() < 0.25 and cosine.std() > 0.01
