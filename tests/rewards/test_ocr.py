"""Words read in a picture against those asked for in quotes."""

import math
import sys

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from tastemaker.errors import MissingExtra
from tastemaker.records import Prompt
from tastemaker.rewards.ocr import OcrMatch, edits, similarity, wanted


@pytest.mark.parametrize(
    "prompt, words",
    [
        ('a sign that says "Open  NOW"', "open now"),
        ("a shop “Bäcker” and a board 'two words'", "bäcker two words"),
        ("the cat's toy isn't here", ""),
        ("a poster ‘hello’, «monde»", "hello monde"),
        ("no words at all", ""),
    ],
)
def test_the_words_in_quotes(prompt, words):
    assert wanted(prompt) == words


def test_edits_and_similarity():
    assert [edits(a, b) for a, b in (("", ""), ("abc", ""), ("kitten", "sitting"), ("ab", "ba"))] == [0, 3, 3, 2]
    assert similarity("open", "open") == 1 and similarity("open", "") == 0 and similarity("open", "pen") == 0.75
    assert similarity("ab", "xyzw") == 0


def test_scores_follow_the_reader():
    read = iter(["Open now", "opem", ""])
    reward = OcrMatch(lambda pixels: next(read))
    prompts = [Prompt('"OPEN NOW"'), Prompt('a sign "open"'), Prompt('"x"'), Prompt("nothing asked")]
    values = reward.score(torch.rand(4, 3, 8, 8), prompts)
    assert values[:3].tolist() == [1.0, 0.75, 0.0] and values[3].isnan()
    assert reward.name == "ocr" and not reward.differentiable and reward.range == (0.0, 1.0)


def test_the_reader_sees_8_bit_rgb_and_what_it_cannot_read_is_nan():
    seen = []
    images = torch.zeros(2, 3, 4, 6)
    images[:, 0] = 1.0
    images[1, 0, 0, 0] = float("nan")
    values = OcrMatch(lambda pixels: seen.append(pixels) or "a").score(images, [Prompt('"a"')] * 2)
    assert values[0] == 1 and values[1].isnan() and len(seen) == 1
    assert seen[0].shape == (4, 6, 3) and seen[0][0, 0].tolist() == [255, 0, 0]

    def fails(pixels):
        raise RuntimeError("out of memory")

    with pytest.warns(UserWarning, match="RuntimeError: out of memory"):
        assert math.isnan(OcrMatch(fails).score(images[:1], [Prompt('"a"')])[0])


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(MissingExtra, match="tastemaker.ocr."):
        OcrMatch()


def test_rapidocr_reads_a_drawn_word():
    picture = Image.new("RGB", (320, 120), "white")
    ImageDraw.Draw(picture).text((30, 30), "HELLO", fill="black", font=ImageFont.load_default(56))
    image = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(120, 320, 3).permute(2, 0, 1) / 255
    values = OcrMatch().score(image[None].expand(2, -1, -1, -1), [Prompt('a sign "Hello"'), Prompt('"goodbye all"')])
    assert values[0] > 0.9 and values[1] < 0.4
