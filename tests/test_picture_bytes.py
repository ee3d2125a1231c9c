"""Pictures as bytes: what is saved is what is kept, whatever the precision."""

import numpy as np
import pytest
import torch

from tastemaker.picture_bytes import as_array, as_bytes, from_bytes

ALL = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, -1, -1)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
def test_every_byte_comes_back(kind):
    assert torch.equal(as_bytes(from_bytes(ALL).to(kind)), ALL)
    assert from_bytes(ALL).dtype == torch.float32 and from_bytes(ALL).max() == 1


def test_values_outside_are_clamped_and_halves_go_to_the_even_byte():
    assert as_bytes(torch.tensor([-1.0, 2.0, 0.5, float("nan")])).tolist() == [0, 255, 128, 0]


def test_half_precision_is_widened_before_it_is_scaled():
    values = torch.linspace(0, 1, 1001).bfloat16()
    assert torch.equal(as_bytes(values), (values.double() * 255).round().byte())


def test_arrays_are_as_pillow_wants_them():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    whole, one = as_array(images), as_array(images[1])
    assert whole.shape == (2, 4, 5, 3) and whole.dtype == np.uint8 and one.flags["C_CONTIGUOUS"]
    assert (one == whole[1]).all() and one[2, 3, 1] == round(float(images[1, 1, 2, 3].detach()) * 255)
