"""Preprocessing to the byte: Pillow's result by two routes, and a gradient that is the resampling's own."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tastemaker.encoders import pixels as views
from tastemaker.encoders.pixels import Crop, Pad, Squash, half_down, half_even, resample
from tastemaker.errors import TastemakerError

SIZES = [(40, 56, 28, 28), (17, 23, 31, 50), (64, 64, 64, 32), (100, 30, 7, 30), (8, 8, 8, 8), (5, 300, 20, 20)]


def bytes_of(height, width, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def tensor(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("height, width, to_height, to_width", SIZES)
def test_both_routes_give_pillows_bytes(height, width, to_height, to_width):
    pixels = bytes_of(height, width)
    resized = [Image.fromarray(p).resize((to_width, to_height), Image.Resampling.BICUBIC) for p in pixels]
    expected = torch.from_numpy(np.stack([np.array(p) for p in resized])).permute(0, 3, 1, 2)
    plain = resample(tensor(pixels), to_height, to_width)
    differentiable = resample(tensor(pixels).requires_grad_(), to_height, to_width)
    assert torch.equal((plain * 255).round().byte(), expected)
    assert torch.equal(plain, differentiable.detach()) and differentiable.requires_grad


def test_the_gradient_is_that_of_resampling_without_rounding():
    images, pull = tensor(bytes_of(40, 56)), torch.randn(2, 3, 20, 24)
    images = images.clamp(0.1, 0.9)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    (resample(ours, 20, 24) * pull).sum().backward()
    (F.interpolate(theirs, (20, 24), mode="bicubic", antialias=True, align_corners=False) * pull).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_a_picture_is_seen_as_it_would_be_saved_and_clipped_pixels_have_no_gradient():
    images = torch.rand(1, 3, 9, 9) * 1.6 - 0.3
    saved = (images.clamp(0, 1) * 255).round() / 255
    assert torch.equal(resample(images, 5, 7), resample(saved, 5, 7))
    wanted = images.clone().requires_grad_()
    resample(wanted, 5, 7).sum().backward()
    outside = (images < 0) | (images > 1)
    assert outside.any() and (wanted.grad[outside] == 0).all() and (wanted.grad[~outside] != 0).any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_and_layout_is_rounded_alike_by_both_routes(kind):
    images = torch.rand(2, 30, 41, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2).to(kind)
    images[0, 0, 0, 0], images[0, 1, 5, 5] = float("inf"), float("-inf")  # clipped, not missing
    wanted = images.clone().requires_grad_()
    given = resample(images[..., 1:], 12, 14)
    assert given.dtype == torch.float32 and torch.equal(given, resample(wanted[..., 1:], 12, 14).detach())
    with torch.no_grad():  # nobody asks for a gradient: Pillow's route, whatever the tensor says
        assert torch.equal(resample(wanted[..., 1:], 12, 14), given)


def test_a_broken_picture_stays_broken_and_leaves_its_neighbours_alone():
    images = torch.rand(3, 3, 12, 12)
    images[1, 0, 3, 3] = float("nan")
    for given in (images, images.clone().requires_grad_()):
        out = resample(given, 6, 6).detach()
        assert out[1].isnan().any() and out[[0, 2]].isfinite().all()
    with pytest.raises(TastemakerError, match=r"\(B, 3, H, W\)"):
        resample(torch.zeros(3, 8, 8), 4, 4)
    assert resample(torch.empty(0, 3, 8, 8), 4, 4).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA"])
@pytest.mark.parametrize("rgb_first", [True, False])
def test_files_of_every_mode_are_cropped_as_released(mode, rgb_first):
    picture = Image.fromarray(bytes_of(50, 31, 1)[0]).convert(mode)
    begun = picture.convert("RGB") if rgb_first else picture
    sized = begun.resize((16, int(16 * 50 / 31)), Image.Resampling.BICUBIC)
    top = round((sized.height - 16) / 2)
    expected = np.array(sized.crop((0, top, 16, top + 16)).convert("RGB"))
    found = Crop(16, rgb_first=rgb_first).open(picture)
    assert np.array_equal((found * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("height, width", [(50, 31), (31, 50), (33, 33), (19, 30), (16, 16)])
def test_a_tensor_is_cropped_as_its_file_is(height, width):
    pixels = bytes_of(height, width, 1)
    for view in (Crop(16), Crop(16, half_down, True), Squash(16), Pad(16)):
        expected = view.open(Image.fromarray(pixels[0]))
        torch.testing.assert_close(view(tensor(pixels))[0], expected, atol=0, rtol=0)
        assert expected.shape == (3, 16, 16)


def test_the_two_crops_differ_where_three_pixels_are_over():
    assert [half_even(n) for n in range(6)] == [0, 0, 1, 2, 2, 2] and [half_down(n) for n in range(6)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]


def test_padding_keeps_the_whole_picture_and_is_black():
    out = Pad(16)(torch.ones(1, 3, 8, 5))
    assert (
        out.shape == (1, 3, 16, 16) and (out[..., 3:13] > 0.99).all()
    )  # 5 * 2 wide, 3 on the left and 3 on the right
    assert (out[..., :3] == 0).all() and (out[..., 13:] == 0).all()
    odd = Pad(16)(torch.ones(1, 3, 16, 7))  # at its size already, 9 to spare
    assert (odd[..., :4] == 0).all() and (odd[..., 4:11] == 1).all() and (odd[..., 11:] == 0).all()
    images = torch.rand(1, 3, 9, 20, requires_grad=True)
    Pad(16)(images).sum().backward()
    assert (images.grad != 0).any()


def test_views_are_equal_by_what_they_do_and_say_it():
    assert Crop(224) == views.CLIP_CROP and Crop(224, half_down, True) == views.TRANSFORMERS_CROP
    assert len({Crop(8), Crop(8), Pad(8), Squash(8), Crop(9)}) == 4
    said = [str(v) for v in (Crop(8), Crop(8, half_down), Pad(8), Squash(8))]
    assert len(set(said)) == 4 and not any("0x" in s for s in said)


def test_normalising_takes_each_channel_by_its_own_figures():
    out = views.normalise(torch.tensor(views.CLIP_MEAN).view(1, 3, 1, 1).expand(1, 3, 2, 2))
    assert out.abs().max() < 1e-6
