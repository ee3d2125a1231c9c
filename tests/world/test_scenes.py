"""Scenes: what a spec says is what stands there, drawn the same for the same seed and fast."""

import time

import numpy as np
import pytest

from tastemaker.object_rules import judge
from tastemaker.world.degrade import KINDS
from tastemaker.world.grammar import COLORS, OBJECTS, TASKS, spec_of, swapped
from tastemaker.world.scenes import SIZE, compose, draw, stamp
from tastemaker.world.sprites import TINTS, art, sprite, tinted


def boxes_of(scene):
    found = {}
    for item in scene.items:
        found.setdefault(item.name, []).append(item.box)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_every_spec_composes_and_holds_and_its_swap_does_not(task):
    for seed in range(1500):
        spec = spec_of(seed, task)
        scene = compose(spec, seed)
        assert judge(boxes_of(scene), spec).correct, (seed, spec)
        assert not judge(boxes_of(scene), swapped(spec, seed)).correct, (seed, swapped(spec, seed))
        assert all(
            i.side / 2 <= i.x <= SIZE - i.side / 2 and i.side / 2 <= i.y <= SIZE - i.side / 2 for i in scene.items
        )


def test_objects_do_not_overlap():
    for seed in range(300):
        items = compose(spec_of(seed, "counting"), seed).items
        for i, a in enumerate(items):
            for b in items[:i]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.side + b.side) / 2


@pytest.mark.parametrize("size", [64, 32])
def test_drawings_are_pictures_and_follow_from_the_seed(size):
    for seed in range(60):
        picture = draw(compose(spec_of(seed), seed), size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.02
        assert np.array_equal(picture, draw(compose(spec_of(seed), seed), size))
    assert not np.array_equal(draw(compose(spec_of(1), 1)), draw(compose(spec_of(1), 2)))


def test_objects_are_drawn_where_they_stand():
    for seed in range(40):
        scene = compose(spec_of(seed, "single_object"), seed)
        item, background = scene.items[0], draw(type(scene)((), scene.background))
        y, x = np.nonzero(np.abs(draw(scene) - background).max(-1) > 0.02)
        assert abs(x.mean() - item.x) < item.side / 3 and abs(y.mean() - item.y) < item.side / 3
        reach = item.side / 2 + 1
        assert max(abs(x + 0.5 - item.x).max(), abs(y + 0.5 - item.y).max()) <= reach


def test_a_picture_takes_less_than_a_millisecond_or_so():
    scenes = [compose(spec_of(seed), seed) for seed in range(200)]
    for scene in scenes:
        draw(scene)  # the sprites of these sizes are now cached, as they are in training
    seconds = []
    for scene in scenes:
        began = time.perf_counter()
        draw(scene)
        seconds.append(time.perf_counter() - began)
    assert np.median(seconds) < 3e-3  # measured 0.2 ms alone on one core; room for a busy machine


def test_sprites():
    for name in OBJECTS:
        raw = art(name)
        assert raw.shape == (64, 64, 4) and 0.1 < (raw[..., 3] > 127).mean() < 0.9
        for color in COLORS:
            small = sprite(name, color, 20)
            assert small.shape == (20, 20, 4) and (small[..., :3] <= small[..., 3:] + 1e-6).all()
            inside = tinted(name, color)[raw[..., 3] > 127][:, :3] / 255
            nearest = min(TINTS, key=lambda c: np.abs(inside.mean(0) - TINTS[c]).sum())
            assert nearest == color or {nearest, color} <= {"red", "pink", "orange", "brown", "yellow", "purple"}


def test_what_falls_outside_is_cut():
    picture, square = np.zeros((8, 8, 3), np.float32), np.ones((4, 4, 4), np.float32)
    for x, y in ((0, 0), (20, 20), (-5, 3)):
        stamp(picture, square, x, y)
    assert picture[..., 0].sum() == 4 and picture[:2, :2].all()
    stamp(picture, np.broadcast_to(np.float32([0.2, 0.1, 0.0, 0.5]), (8, 8, 4)), 4, 4)
    np.testing.assert_allclose(picture[0, 0], [0.7, 0.6, 0.5])
    np.testing.assert_allclose(picture[7, 7], [0.2, 0.1, 0.0])


@pytest.mark.parametrize("spoil", KINDS)
def test_degradations_change_pictures_and_stay_in_range(spoil):
    def detail(p):
        return np.abs(np.diff(p, axis=0)).mean()

    for seed in range(20):
        clean = draw(compose(spec_of(seed), seed))
        before = clean.copy()
        spoiled = spoil(clean, np.random.default_rng(seed))
        assert np.array_equal(clean, before) and spoiled.shape == clean.shape and spoiled.dtype == np.float32
        assert spoiled.min() >= 0 and spoiled.max() <= 1 and np.abs(spoiled - clean).mean() > 0.001
        assert np.array_equal(spoiled, spoil(clean, np.random.default_rng(seed)))
        assert (detail(spoiled) < detail(clean)) == (spoil.__name__ in ("blur", "wash_out"))
