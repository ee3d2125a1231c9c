"""The discriminator's losses against closed forms and double backward, and that its logit becomes log q/p."""

import math

import pytest
import torch
from torch import nn

from tastemaker.algorithms.discriminator import (
    Config,
    Pairs,
    Pixels,
    feature_slope,
    logistic,
    picture_slope,
    r1,
    r1_of,
    train,
    validate,
)
from tastemaker.algorithms.optimise import OptimiserConfig, begin
from tastemaker.algorithms.selection import Selection
from tastemaker.errors import TastemakerError
from tastemaker.rewards.discriminator import HeadConfig, ProjectionHead

OPTIMISER = OptimiserConfig(learning_rate=3e-3, betas=(0.9, 0.999), max_grad_norm=float("inf"))


class Encoder(nn.Module):
    """A small frozen one with attention, whose fused kernels have neither of the derivatives that R1 needs."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False)

    def forward(self, images):
        return self.blocks(self.patches(images).flatten(2).transpose(1, 2)).mean(1)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder().eval().requires_grad_(False)


def head_of(features, blocks=0, words=5, seed=1):
    torch.manual_seed(seed)
    head = ProjectionHead(HeadConfig(features, words=words, width=12, blocks=blocks))
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return head


def test_the_loss_is_two_log_two_where_the_logits_are_0_and_knows_its_sides():
    zero = torch.zeros(3)
    assert logistic(zero, zero).tolist() == pytest.approx([2 * math.log(2)] * 3)
    real, fake = torch.tensor([2.0]), torch.tensor([-1.0])
    expected = -math.log(1 / (1 + math.exp(-2))) - math.log(1 - 1 / (1 + math.exp(1)))
    assert float(logistic(real, fake)) == pytest.approx(expected)
    assert logistic(real, fake) < logistic(fake, real)


@pytest.mark.parametrize("blocks", [0, 2])
def test_r1_through_the_encoder_equals_double_backward(encoder, blocks):
    head, images, told = head_of(16, blocks), torch.rand(5, 3, 8, 8), torch.randn(5, 5)
    encoder.double(), head.double()
    images, told = images.double(), told.double()

    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):  # the whole way by second derivatives
        x = images.clone().requires_grad_()
        (g,) = torch.autograd.grad(head(encoder(x), told).sum(), x, create_graph=True)
        direct = g.pow(2).flatten(1).sum(1) / 2
        expected = torch.autograd.grad(direct.mean(), list(head.parameters()), allow_unused=True)

    slope = feature_slope(head, encoder(images), told)
    found, moved = picture_slope(encoder, images, slope)
    torch.testing.assert_close(found, g.detach(), rtol=1e-9, atol=1e-12)
    penalty = r1(slope, moved)
    torch.testing.assert_close(penalty, direct, rtol=1e-9, atol=1e-12)
    ours = torch.autograd.grad(penalty.mean(), list(head.parameters()), allow_unused=True)
    compared = 0
    for a, b in zip(ours, expected):
        if a is None or b is None:
            assert (a is None or not a.any()) and (b is None or not b.any())
        else:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)
            compared += int(b.abs().sum() > 0)
    assert compared >= 3


def test_r1_counts_in_the_pixel_range_that_is_named(encoder):
    head, images = head_of(16), torch.rand(4, 3, 8, 8)
    pairs = Pairs(encoder(images), encoder(images), torch.randn(4, 5))
    pixels = Pixels(encoder, lambda rows: images[list(rows)])
    one, two = (r1_of(head, pairs, pixels, [0, 1, 2], width) for width in (1.0, 2.0))
    assert one.shape == (3,) and (one > 0).all()
    torch.testing.assert_close(two, one / 4)


def trained(pairs, held_out, config, **shape):
    torch.manual_seed(0)
    head = ProjectionHead(HeadConfig(pairs.real.shape[1], width=16, **shape))
    head.standardise(torch.cat([pairs.real, pairs.fake]))
    selection = Selection(begin(head, config.optimiser))
    records = list(train(head, pairs, held_out, None, config, selection))
    selection.keep_best()
    return head, selection, records


def test_the_logit_of_two_gaussians_is_their_log_ratio_class_by_class():
    """q = N(m_y, 1), p = N(-m_y, 1) with m of the class: log q/p = 2 m_y z, and E_p[q/p] = 1."""
    generator = torch.Generator().manual_seed(0)
    means, count = torch.tensor([0.4, -0.3]), 20_000
    told = torch.randint(2, (count,), generator=generator)
    noise = torch.randn(2, count, 1, generator=generator)
    pairs = Pairs(means[told][:, None] + noise[0], -means[told][:, None] + noise[1], told)
    cut = count // 2
    config = Config(steps=400, batch_size=1000, validate_every=20, patience=10, optimiser=OPTIMISER)
    head, _, _ = trained(pairs.at(slice(0, cut)), pairs.at(slice(cut, count)), config, classes=2)
    z = torch.linspace(-2, 2, 9)[:, None]
    for y, mean in enumerate(means.tolist()):
        with torch.no_grad():
            found = head(z, torch.full((9,), y))
        assert (found - 2 * mean * z[:, 0]).abs().max() < 0.15
    assert validate(head, pairs.at(slice(cut, count)))["calibration"] == pytest.approx(1.0, abs=0.05)


def test_a_fresh_head_says_nothing_and_training_ends_where_the_held_out_loss_rises():
    """Real and generated of one distribution: there is nothing to find but noise, and the kept weights say little."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(4, 60, 20, generator=generator)
    told = torch.zeros(60, 0)
    config = Config(steps=500, batch_size=60, validate_every=5, patience=3, optimiser=OPTIMISER)
    fresh = ProjectionHead(HeadConfig(20, width=16))
    assert not fresh(draws[0], told).any()
    held_out = Pairs(draws[2], draws[3], told)
    head, selection, records = trained(Pairs(draws[0], draws[1], told), held_out, config)
    assert selection.step < 100 and selection.step - selection.best_step == 15
    last = [r.values["validation_loss"] for r in records if "validation_loss" in r.values]
    assert validate(head, held_out)["validation_loss"] == pytest.approx(min(last)) and min(last) < last[-1]


def test_presets_name_the_weight_of_r1():
    assert Config(r1=0.5).r1_weight == 0.5
    assert (Config(preset="theory", r1=0.5).r1_weight, Config(preset="default").r1_weight) == (0.0, 1e-5)


@pytest.mark.parametrize(
    "wrong", [{"preset": "strong"}, {"world": "other"}, {"validation_share": 0.6, "test_share": 0.5}, {"r1": -1.0}]
)
def test_wrong_settings_say_what_was_expected(wrong):
    with pytest.raises(TastemakerError, match="expected"):
        Config(**wrong)
