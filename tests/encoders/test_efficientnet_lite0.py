"""The ImageNet feature space: it sees what is in real photographs, is differentiable, and refuses wrong files."""

import pathlib

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from tastemaker.encoders.efficientnet_lite0 import EfficientNetLite0, SameConv, load, package_file, preprocess
from tastemaker.encoders.protocol import Encoder, extract
from tastemaker.errors import TastemakerError
from tastemaker.evaluation.frechet import moments_of_images


@pytest.fixture(scope="module")
def encoder():
    return EfficientNetLite0()


def photograph(path: pathlib.Path) -> torch.Tensor:
    """(1, 3, S, S) in [0, 1], the middle square."""
    pixels = np.array(Image.open(path).convert("RGB"))
    side, (height, width) = min(pixels.shape[:2]), pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    return torch.from_numpy(pixels[top : top + side, left : left + side]).permute(2, 0, 1)[None] / 255


def test_a_portrait_in_uniform_is_a_military_uniform(encoder):
    path = pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    assert encoder.logits(photograph(path)).argmax().item() == 652  # military uniform


@pytest.mark.parametrize("name, label", [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_photographs_are_classified(encoder, name, label):
    sklearn = pytest.importorskip("sklearn", reason="the two photographs come with scikit-learn")
    path = pathlib.Path(sklearn.__file__).parent / "datasets" / "images" / name
    assert encoder.logits(photograph(path)).argmax().item() == label


def test_features_do_not_depend_on_the_batch_and_leave_the_caller_no_trace(encoder):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = encoder.features(images)
    assert together.shape == (4, 1280) and together.dtype == torch.float32 and isinstance(encoder, Encoder)
    torch.testing.assert_close(encoder.features(images[2:3]), together[2:3], atol=1e-5, rtol=1e-4)
    assert not encoder.network.training and not any(p.requires_grad for p in encoder.network.parameters())


def test_gradient_reaches_the_pixels_and_agrees_with_a_finite_difference(encoder):
    images = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder.features(images).square().mean(), images)
    slope, step = gradient.norm(), 0.01
    with torch.no_grad():
        ends = [encoder.features(images + sign * step * gradient / slope).square().mean() for sign in (1, -1)]
    assert abs((ends[0] - ends[1]) / (2 * step) - slope) < 0.01 * slope


def test_resizing_keeps_flat_pictures_and_averages_when_it_shrinks():
    assert torch.allclose(preprocess(torch.full((1, 3, 50, 70), 0.25)), torch.tensor(-0.5), atol=1e-5)
    checks = (torch.arange(896)[:, None] + torch.arange(896)) % 2  # a fine pattern must turn grey, not alias
    assert preprocess(checks.expand(1, 3, -1, -1).float()).abs().max() < 0.05


@pytest.mark.parametrize("size, kernel, stride, pads", [(224, 3, 2, (0, 1)), (112, 5, 2, (1, 2)), (7, 5, 1, (2, 2))])
def test_padding_gives_ceil_of_size_over_stride(size, kernel, stride, pads):
    conv = SameConv(1, 1, kernel, stride)
    assert conv.pads(size) == pads
    assert conv(torch.zeros(1, 1, size, size)).shape[-1] == -(-size // stride)


def test_a_file_with_other_keys_or_no_file_is_one_sentence(tmp_path):
    weights = torch.load(package_file(), weights_only=True)
    weights.pop("_fc.bias")
    torch.save(weights, tmp_path / "short.pth")
    (tmp_path / "broken.pth").write_bytes(b"not a weight file")
    for name in ("short.pth", "broken.pth", "absent.pth"):
        with pytest.raises(TastemakerError, match="is not a weight file of EfficientNet-Lite0"):
            load(tmp_path / name)


class Mean:
    """An encoder whose features are known: the mean of each channel."""

    name, dim, provenance = "mean", 3, None

    def features(self, images):
        return images.mean((2, 3))


def test_extract_and_streaming_moments_see_the_same_pictures():
    images = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    features = extract(Mean(), images.split(4))
    torch.testing.assert_close(features, images.mean((2, 3)))
    moments = moments_of_images(Mean(), images.split(3))
    np.testing.assert_allclose(moments.covariance, np.cov(features.double().numpy(), rowvar=False), rtol=1e-12)
    assert extract(Mean(), []).shape == (0, 3)


@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_what_is_no_batch_of_pictures_is_refused(images):
    with pytest.raises(TastemakerError, match=r"\(B, 3, H, W\)"):
        extract(Mean(), [images])


def test_an_encoder_of_another_width_than_it_says_is_named():
    class Wide(Mean):
        dim = 5

    with pytest.raises(TastemakerError, match="encoder 'mean' must give"):
        extract(Wide(), [torch.zeros(2, 3, 8, 8)])
