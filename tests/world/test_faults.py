"""What is wrong with a picture: facts, words and regions, by boxes that are known."""

import pytest
import torch

from tastemaker.object_rules import Box
from tastemaker.world.faults import faults_of, share_of_facts, wrong_regions, wrong_words
from tastemaker.world.grammar import prompt_of

TWO = {
    "tag": "color_attr",
    "include": [{"class": "cat", "count": 1, "color": "red"}, {"class": "dog", "count": 1, "color": "blue"}],
}
LEFT = {
    "tag": "position",
    "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
}
THREE = {"tag": "counting", "include": [{"class": "key", "count": 3}], "exclude": [{"class": "key", "count": 4}]}
UP_LEFT, DOWN_RIGHT, UP_RIGHT, DOWN_LEFT = ((0, 0, 32, 32), (32, 32, 64, 64), (32, 0, 64, 32), (0, 32, 32, 64))


def box(place, color=None):
    return Box(*place, 0.95, color)


def facts(detections, spec):
    return [(f.clause["class"], f.fact) for f in faults_of(detections, spec)]


def named(detections, spec):
    words = prompt_of(spec).text.split()
    return [w for w, wrong in zip(words, wrong_words(faults_of(detections, spec), words)) if wrong]


def test_facts_and_their_words():
    right = {"cat": [box(UP_LEFT, "red")], "dog": [box(DOWN_RIGHT, "blue")]}
    assert facts(right, TWO) == [] and named(right, TWO) == []
    green = {"cat": [box(UP_LEFT, "red")], "dog": [box(DOWN_RIGHT, "green")]}
    assert facts(green, TWO) == [("dog", "color")] and named(green, TWO) == ["blue"]
    missing = {"cat": [box(UP_LEFT, "blue")]}
    assert facts(missing, TWO) == [("cat", "color"), ("dog", "class")] and named(missing, TWO) == ["red", "dog"]


def test_relations_are_wrong_only_where_both_objects_are_there():
    right = {"cat": [box(UP_RIGHT)], "dog": [box(UP_LEFT)]}
    assert facts(right, LEFT) == []
    swapped = {"cat": [box(UP_LEFT)], "dog": [box(UP_RIGHT)]}
    assert facts(swapped, LEFT) == [("dog", "position")] and named(swapped, LEFT) == ["left"]
    assert facts({"dog": [box(UP_LEFT)]}, LEFT) == [("cat", "class")]


def test_numbers_may_be_too_small_or_too_large():
    few, many = {"key": [box(UP_LEFT), box(DOWN_RIGHT)]}, {"key": [box(UP_LEFT)] * 4}
    for detections in (few, many):
        assert facts(detections, THREE) == [("key", "count")] and named(detections, THREE) == ["three"]
    assert facts({"key": [box(UP_LEFT)] * 3}, THREE) == [] and facts({}, THREE) == [("key", "class")]


def regions(detections, spec):
    return wrong_regions(faults_of(detections, spec), detections, spec, 2).tolist()


def test_the_share_of_facts_that_hold():
    right = {"cat": [box(UP_LEFT, "red")], "dog": [box(DOWN_RIGHT, "blue")]}
    green = {"cat": [box(UP_LEFT, "red")], "dog": [box(DOWN_RIGHT, "green")]}
    assert [share_of_facts(seen, TWO) for seen in (right, green, {"cat": right["cat"]}, {})] == [1, 0.75, 0.5, 0]
    swapped = {"cat": [box(UP_LEFT)], "dog": [box(UP_RIGHT)]}
    assert share_of_facts(swapped, LEFT) == pytest.approx(2 / 3)
    assert share_of_facts({"dog": [box(UP_LEFT)]}, LEFT) == pytest.approx(1 / 3)  # what it should be left of is gone
    places = (UP_LEFT, DOWN_RIGHT, UP_RIGHT, DOWN_LEFT)
    shares = [share_of_facts({"key": [box(p) for p in places[:n]]}, THREE) for n in range(5)]
    assert shares == pytest.approx([0, (1 + 1 / 3) / 2, (1 + 2 / 3) / 2, 1, (1 + 2 / 3) / 2])


def test_regions():
    right = {"cat": [box(UP_LEFT, "red")], "dog": [box(DOWN_RIGHT, "blue")]}
    assert regions(right, TWO) == [[False, False], [False, False]]
    green = {"cat": [box(UP_LEFT, "red")], "dog": [box(DOWN_RIGHT, "green")]}
    assert regions(green, TWO) == [[False, False], [False, True]]  # the dog alone
    missing = {"cat": [box(UP_LEFT, "red")]}
    assert regions(missing, TWO) == [[False, True], [True, True]]  # all that the cat does not cover
    stranger = {"cat": [box(UP_LEFT, "red")], "car": [box(DOWN_LEFT)]}
    assert regions(stranger, TWO) == [[False, False], [True, False]]  # what stands in its place
    assert torch.tensor(regions({}, TWO)).all()
    full = {"key": [box((0, 0, 64, 64)), box((0, 0, 64, 64))]}
    assert torch.tensor(regions(full, THREE)).all()
