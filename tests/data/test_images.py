"""Pictures in and out: each kind of file gives the expected values, and nothing half-written is left."""

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

from tastemaker.data import files
from tastemaker.data.grid import draw_grid, save_grid, wrap
from tastemaker.data.images import (
    content_hash,
    crop_square,
    list_images,
    load_image,
    pad_square,
    resize,
    save_image,
)
from tastemaker.errors import TastemakerError


def test_png_round_trip_is_exact_to_8_bits(tmp_path):
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    save_image(image, tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") - image).abs().max() <= 0.5 / 255 + 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_transparency_lies_on_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 255
    rgba[0, :, 3] = [255, 0, 51]  # opaque, clear and a fifth red
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = torch.tensor([[1.0, 1, 1], [0, 1, 0.8], [0, 1, 0.8]])
    torch.testing.assert_close(load_image(tmp_path / "a.png")[:, 0], expected, atol=0.003, rtol=0)


def test_palette_with_a_clear_colour(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 255, 10, 10, 10])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=1)
    assert load_image(tmp_path / "a.png")[:, 0].T.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_grey_16_bit_keeps_its_depth(tmp_path):
    values = np.array([[0, 1, 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    torch.testing.assert_close(image[1, 0], torch.tensor([0, 1, 257, 65535]) / 65535)
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("mode", ["L", "LA", "1", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (2, 3), "white").convert(mode).save(path)
    image = load_image(path)
    assert image.shape == (3, 3, 2) and image.dtype == torch.float32
    torch.testing.assert_close(image, torch.ones(3, 3, 2), atol=0.01, rtol=0)


def test_exif_orientation_turns_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise to be seen
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # left half white: upright, the top half
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = load_image(tmp_path / "a.jpg")
    assert image.shape == (3, 16, 8) and image[:, :6].mean() > 0.95 and image[:, 10:].mean() < 0.05


def test_truncated_unreadable_missing_and_huge_files_are_named(tmp_path, monkeypatch):
    save_image(torch.rand(3, 40, 40), tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "text.jpg", "empty.png", "missing.png"):
        with pytest.raises(TastemakerError, match=name):
            load_image(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TastemakerError, match="whole.png.*decompression bomb"):
        load_image(tmp_path / "whole.png")


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, monkeypatch):
    save_image(torch.zeros(3, 4, 4), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(TastemakerError, match="the disk is full: .*a.png"):
        save_image(torch.ones(3, 4, 4), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == before


def test_a_really_full_disk(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(TastemakerError, match="disk is full"), files.whole_file(tmp_path / "a.txt") as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("x" * 100_000)
    assert not list(tmp_path.iterdir())


def test_a_failure_of_the_writer_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), files.whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyError("the writer's own mistake")
    assert not list(tmp_path.iterdir())


def test_resize_is_antialiased_and_stays_within_range():
    stripes = (torch.arange(64) % 2).float().expand(3, 64, 64)
    small = resize(stripes, 8, 8)
    torch.testing.assert_close(small[:, :, 1:-1], torch.full((3, 8, 6), 0.5), atol=0.02, rtol=0)
    edge = (torch.arange(16) >= 8).float().expand(2, 3, 16, 16)
    big = resize(edge, 50, 40)
    assert big.shape == (2, 3, 50, 40) and big.min() >= 0 and big.max() <= 1


def test_squares():
    image = torch.arange(12.0).reshape(1, 2, 6).expand(3, 2, 6) / 12
    assert torch.equal(crop_square(image), image[:, :, 2:4])
    padded = pad_square(image)
    assert padded.shape == (3, 6, 6) and torch.equal(padded[:, 2:4], image) and (padded[:, :2] == 1).all()


def test_listing_is_sorted_below_subfolders_and_passes_over_hidden_files(tmp_path):
    for name in ("b.PNG", "a/z.jpg", ".hidden.png", ".cache/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)] == ["a/z.jpg", "b.PNG"]
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(TastemakerError, match=folder):
            list_images(tmp_path / folder)


def test_content_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_hash(tmp_path / "a") == content_hash(b"abc") == known


def test_grid_has_the_pictures_in_place_and_words_below(tmp_path):
    images = torch.stack([torch.full((3, 64, 64), v) for v in (0.2, 0.4, 0.6)])
    sheet = np.asarray(draw_grid(images, ["one", "two", "three"], columns=2))
    assert sheet.shape[1] == 2 * 128 + 3 * 8
    assert [sheet[70, 70, 0], sheet[70, 206, 0]] == [51, 102]
    assert (sheet[136:160, 8:136] < 100).any() and (sheet[:, 0] == 255).all()
    bare = np.asarray(draw_grid(images, columns=3))
    assert bare.shape == (128 + 16, 3 * 128 + 32, 3)
    save_grid(list(images), tmp_path / "g.png", ["x"] * 3)
    assert load_image(tmp_path / "g.png").shape[0] == 3
    with pytest.raises(TastemakerError, match="one caption per picture"):
        draw_grid(images, ["one"])


def test_captions_wrap_and_end_in_an_ellipsis():
    lines = wrap("many words " * 30, 128)
    assert len(lines) == 4 and lines[-1].endswith("…") and not lines[0].endswith("…")
    assert wrap("w" * 200, 128)[0].endswith("…") and wrap("short", 128) == ["short"]
