"""The tokenizer: bits and codes go round, the gradient goes straight through, bad tokens and sizes are sentences."""

import pytest
import torch
from small import tiny_tokenizer

from tastemaker.errors import TastemakerError
from tastemaker.generators.vq import (
    TokenCodec,
    Tokenizer,
    TokenizerConfig,
    bits_of,
    codes_of,
    load_tokenizer,
    save_tokenizer,
    signs_of_latent,
)


def test_every_code_is_its_bits_and_the_first_counts_most():
    codes = torch.arange(64).reshape(1, 64)
    bits = bits_of(codes, 6)
    assert bits[0, 33].tolist() == [1, -1, -1, -1, -1, 1]
    assert torch.equal(codes_of(bits.unflatten(1, (4, 16)).movedim(-1, 1)), codes)
    assert codes_of(torch.zeros(1, 3, 1, 1)).item() == 0  # 0 counts as -1


def test_the_gradient_goes_straight_through():
    z = torch.tensor([[0.3, -2.0, 0.0]], requires_grad=True)
    signs = signs_of_latent(z)
    assert signs.tolist() == [[1.0, -1.0, -1.0]]
    (signs * torch.tensor([5.0, 6.0, 7.0])).sum().backward()
    assert z.grad.tolist() == [[5.0, 6.0, 7.0]]


@pytest.mark.parametrize("factor, bits, side", [(2, 3, 16), (4, 6, 8), (8, 12, 4)])
def test_pictures_become_tokens_and_come_back(factor, bits, side):
    tokenizer = Tokenizer.new(TokenizerConfig(32, factor, bits, 8)).eval()
    codec, images = TokenCodec(tokenizer), torch.rand(3, 3, 32, 32)
    tokens = codec.encode(images, torch.arange(3))
    assert tokens.shape == (3, side**2) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < 2**bits
    drawn, z = tokenizer(images)
    assert z.shape == (3, bits, side, side) and drawn.shape == images.shape
    torch.testing.assert_close(codec.decode(tokens), drawn)  # the codec draws what training saw
    torch.testing.assert_close(codec.encode(images[1:2], torch.zeros(1)), tokens[1:2])


def test_what_is_no_token_or_of_another_size_is_one_sentence():
    codec = TokenCodec(tiny_tokenizer())
    with pytest.raises(TastemakerError, match="expected tokens from 0 to 63, got 0 to 64"):
        codec.decode(torch.tensor([[0, 64] + [1] * 14]))
    with pytest.raises(TastemakerError, match="masked ones have to be drawn"):
        codec.decode(torch.full((1, 16), -1))
    with pytest.raises(TastemakerError, match="reads pictures of 16 x 16 pixels, got 32 x 16"):
        codec.encode(torch.rand(1, 3, 16, 32), torch.zeros(1))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"factor": 3}, "factor"),
        ({"size": 20}, "multiples of 8"),
        ({"bits": 0}, "bits"),
        ({"channels": 12}, "channels"),
    ],
)
def test_shapes_that_cannot_be(changes, sentence):
    with pytest.raises(TastemakerError, match=sentence):
        TokenizerConfig(**changes)


def test_files_go_round(tmp_path):
    tokenizer, images = tiny_tokenizer(), torch.rand(2, 3, 16, 16)
    save_tokenizer(tokenizer, tmp_path / "model.safetensors", {"steps": 3})
    again = load_tokenizer(tmp_path)
    assert again.config == tokenizer.config and not any(p.requires_grad for p in again.parameters())
    assert torch.equal(again(images)[0], tokenizer(images)[0])
