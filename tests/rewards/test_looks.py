"""Copies of a picture that a reward is averaged over."""

import pytest
import torch

from tastemaker.errors import TastemakerError
from tastemaker.rewards.looks import ONE, Looks


def test_without_copies_it_is_the_picture_itself():
    images = torch.rand(2, 3, 8, 8)
    (only,) = ONE.copies(images)
    assert only is images


def test_a_copy_depends_on_its_own_picture_alone():
    images, looks = torch.rand(3, 3, 16, 16), Looks(count=2)
    together = list(looks.copies(images))
    alone = list(looks.copies(images[1:2]))
    assert len(together) == 2 and together[0].shape == images.shape
    for whole, one in zip(together, alone):
        torch.testing.assert_close(whole[1:2], one, rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])


def test_noise_has_its_width_and_a_shift_moves_pixels():
    images = torch.full((1, 3, 64, 64), 0.5)
    (noisy,) = Looks(1, noise=0.1, shift=0.0, tint=0.0).copies(images)
    assert float((noisy - images).std()) == pytest.approx(0.1, rel=0.05)
    ramp = torch.linspace(0, 1, 65)[:64].expand(1, 3, 64, 64).contiguous()
    moves = {round(float((moved - ramp)[0, 0, 32, 32] * 64)) for moved in Looks(40, noise=0.0, tint=0.0).copies(ramp)}
    assert moves <= set(range(-3, 4)) and len(moves) >= 5  # 0.05 of 64 pixels, to both sides


def test_a_tint_moves_whole_channels():
    images = torch.rand(200, 3, 4, 4)
    (tinted,) = Looks(1, noise=0.0, shift=0.0, tint=0.2).copies(images)
    moved = tinted - images
    torch.testing.assert_close(moved, moved[..., :1, :1].expand_as(moved), rtol=0, atol=1e-6)
    assert float(moved[..., 0, 0].std()) == pytest.approx(0.2, rel=0.1)


def test_the_gradient_is_that_of_the_mean_over_copies():
    images, looks = torch.rand(1, 3, 8, 8).requires_grad_(), Looks(3, shift=0.0)
    weights = torch.randn(1, 3, 8, 8)
    score = torch.stack([(copy * weights).sum() for copy in looks.copies(images)]).mean()
    (gradient,) = torch.autograd.grad(score, images)
    torch.testing.assert_close(gradient, weights)


@pytest.mark.parametrize("wrong", [{"count": -1}, {"noise": -0.1}, {"shift": 1.0}, {"tint": -1.0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(TastemakerError, match="expected"):
        Looks(**wrong)
