"""Files read ahead: the pixels that the picture's tensor would give, in order, each file decoded once."""

import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from tastemaker.data.images import content_hash, decode_image, load_image, save_image
from tastemaker.encoders.pixels import Crop, Pad, Squash, half_down
from tastemaker.records import Provenance
from tastemaker.workflows import reading
from tastemaker.workflows.reading import batches, plain_picture
from tastemaker.workflows.score import list_jobs, score_folder

VIEWS = (Crop(16), Crop(16, half_down, True), Squash(12), Pad(16))


def picture(mode="RGB", size=(31, 24), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Files of every kind: plain, with transparency, a palette, 16-bit grey, turned by EXIF, JPEG, cut short."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "L", "RGBA", "P", "LA", "1"):
        picture(mode).save(tmp_path / f"{mode}.png")
    clear = picture("RGBA")
    clear.putalpha(90)
    clear.save(tmp_path / "clear.webp", lossless=True)
    picture().save(tmp_path / "keyed.png", transparency=tuple(picture().getpixel((0, 0))))
    picture().save(tmp_path / "turned.jpg", exif=exif)
    picture().save(tmp_path / "plain.jpg")
    Image.fromarray(np.arange(31 * 24, dtype=np.uint16).reshape(24, 31) * 80).save(tmp_path / "deep.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "RGB.png").read_bytes()[:300])
    return tmp_path


def test_every_file_gives_the_pixels_of_its_tensor(folder):
    hashes, errors, found = {}, {}, 0
    jobs = list_jobs(folder)
    for ready, seen in batches(jobs, 3, hashes, errors, (None, *VIEWS)):
        for i, job in enumerate(ready):
            whole = load_image(job.path)
            assert torch.equal(seen[None][i], whole) and hashes[job.index] == content_hash(job.path)
            assert all(torch.equal(seen[view][i], view(whole[None])[0]) for view in VIEWS), job.name
            found += 1
    assert found == len(jobs) - 1 == len(hashes) and [jobs[i].name for i in errors] == ["cut.png"]


def test_what_is_plain_is_what_decoding_leaves_as_it_is(folder):
    plain = {p.name: plain_picture(p.read_bytes()) for p in folder.iterdir()}
    assert {name for name, kept in plain.items() if kept is not None} == {"RGB.png", "plain.jpg"}
    for name in ("RGB.png", "plain.jpg"):
        kept = torch.from_numpy(np.array(plain[name])).permute(2, 0, 1)
        assert torch.equal(kept, (decode_image((folder / name).read_bytes(), name) * 255).round().byte())


@dataclass(frozen=True)
class Counting(Crop):
    """A crop that tells the threads and the times it was asked."""

    asked: list = None  # type: ignore[assignment]

    def open(self, picture):
        self.asked.append(threading.current_thread())
        return super().open(picture)

    def __hash__(self):
        return hash(self.size)


class OfView:
    """A reward with a network's view: the mean of its pixels, and the shapes it was given."""

    differentiable, range, provenance = False, (0, 1), Provenance("mean", "hash", "1")

    def __init__(self, name, view):
        self.name, self.view, self.shapes = name, view, []

    def pixels(self, images):
        raise AssertionError("files go to the view by threads, not again in the loop")

    def score(self, images, prompts):
        return self.score_pixels(self.pixels(images), prompts)

    def score_pixels(self, pixels, prompts):
        self.shapes.append(tuple(pixels.shape))
        return pixels.mean((1, 2, 3))


def test_rewards_of_one_view_share_what_threads_made_and_any_sizes_share_a_batch(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(7):
        save_image(torch.rand(3, 20 + i, 33 - i, generator=torch.Generator().manual_seed(i)), folder / f"{i}.png")
    view = Counting(16, asked=[])
    one, two, other = OfView("one", view), OfView("two", replace(view)), OfView("other", Squash(12))
    scores = score_folder([one, two, other], folder, tmp_path / "s.parquet", batch=4)
    assert one.shapes == two.shapes == [(4, 3, 16, 16), (3, 3, 16, 16)] and other.shapes[1] == (3, 3, 12, 12)
    assert len(view.asked) == 7 and threading.main_thread() not in view.asked
    expected = torch.stack([Crop(16)(load_image(folder / f"{i}.png")[None]).mean() for i in range(7)])
    torch.testing.assert_close(scores.column("one"), expected)
    assert torch.equal(scores.column("one"), scores.column("two"))


def test_a_picture_that_no_view_can_take_is_left_out_by_name(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture().save(folder / "a.png")
    picture(size=(400, 1)).save(folder / "thin.png")  # 16 / 400 of one row is no row
    picture("L", size=(400, 1)).save(folder / "thin_grey.png")
    scores = score_folder([OfView("one", Pad(16))], folder, tmp_path / "s.parquet")
    assert scores.files == ("a.png",) and [name for name, _ in scores.errors] == ["thin.png", "thin_grey.png"]
    assert all("rewards' size" in reason for _, reason in scores.errors)


def test_reading_goes_on_ahead_and_no_further_and_ends_with_its_reader(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(reading, "_read", lambda content, looks, where: begun.append(where))
    picture().save(tmp_path / "a.png")
    job = list_jobs(tmp_path / "a.png")[0]
    ahead = reading.read_ahead([replace(job, index=i) for i in range(50)], (None,), 5)
    taken = [next(ahead) for _ in range(3)]
    assert [job.index for job, _ in taken] == [0, 1, 2]
    until = time.monotonic() + 10
    while len(begun) < 8 and time.monotonic() < until:  # 5 past those taken, while the loop is busy elsewhere
        time.sleep(0.01)
    time.sleep(0.05)
    ahead.close()
    assert len(begun) == 8 and not any(thread.name.startswith("read_") for thread in threading.enumerate())
