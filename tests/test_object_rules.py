"""GenEval's rules, each at its edge. Boxes are (x1, y1, x2, y2) with y growing downward."""

import pytest

from tastemaker.errors import TastemakerError
from tastemaker.object_rules import Box, Rules, judge, kept, overlap, relations


def at(x, y, side=10.0, score=1.0, color=None):
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2, score, color)


def spec(*include, exclude=(), tag="two_object"):
    return {"tag": tag, "include": list(include), "exclude": list(exclude)}


def clause(name, count=1, **more):
    return {"class": name, "count": count, **more}


@pytest.mark.parametrize(
    "dx, dy, held",
    [
        (-30, 0, {"left of"}),
        (30, 0, {"right of"}),
        (0, -30, {"above"}),
        (0, 30, {"below"}),
        (30, 30, {"right of", "below"}),  # a diagonal holds both: (30 - 2) / 42.4 = 0.66
        (-30, -30, {"left of", "above"}),
        (30, 10, {"right of"}),  # (10 - 2) / 31.6 = 0.25
        (0, 0, set()),  # identical centres
        (2, 0, set()),  # exactly the margin: 0.1 (10 + 10)
        (-1.9, 1.9, set()),
        (2.0009, 0, set()),  # less than a thousandth past the margin
        (4.01, 0, {"right of"}),  # (4.01 - 2) / 4.01 just above a half
        (4.0, 0, set()),  # exactly a half does not hold
        (3.99, 0, set()),
    ],
)
def test_relations_at_margins_and_diagonals(dx, dy, held):
    assert relations(at(32 + dx, 32 + dy), at(32, 32)) == held


def test_relations_use_the_sizes_of_both_axes_and_the_full_offset():
    wide, tall = Box(0, 0, 100, 10), Box(0, 0, 10, 100)
    assert relations(Box(20, 50, 120, 60), wide) == {"below"}  # 20 across is all margin
    assert relations(Box(50, 20, 60, 120), tall) == {"right of"}
    # 10 along x and 25 along y of boxes 40 wide and 10 high: reduced (2, 23) over the unreduced length 26.9
    assert relations(Box(10, 25, 50, 35), Box(0, 0, 40, 10)) == {"below"}
    assert relations(at(36, 32), at(32, 32), margin=0.0) == {"right of"}


def test_the_threshold_is_strict_and_ties_go_to_the_later():
    boxes = [at(1, 1, score=0.3), at(2, 2, score=0.5), at(3, 3, score=0.5), at(4, 4, score=0.9)]
    assert [b.centre[0] for b in kept(boxes, 0.3)] == [4, 3, 2]
    assert len(kept([at(k, 0) for k in range(30)], 0.0)) == 16
    assert [b.centre[0] for b in kept([at(k, 0) for k in range(30)], 0.0)][:2] == [29, 28]


def test_thresholds_are_compared_in_single_precision():
    stored = 0.30000001192092896  # 0.3 as a detector's float32 holds it
    assert kept([at(1, 1, score=stored)], 0.3) == [] and len(kept([at(1, 1, score=0.3000001)], 0.3)) == 1


def test_overlaps_count_the_last_pixel_and_drop_the_worse_box():
    assert overlap(Box(0, 0, 9, 9), Box(0, 0, 9, 9)) == 1 and overlap(Box(0, 0, 9, 9), Box(20, 0, 29, 9)) == 0
    assert overlap(Box(0, 0, 9, 9), Box(0, 0, 4, 9)) == 0.5  # 5 x 10 of 10 x 10 pixels
    boxes = [Box(0, 0, 4, 9, 0.8), Box(0, 0, 9, 9, 0.9), Box(50, 0, 59, 9, 0.7)]
    assert [b.score for b in kept(boxes, 0.3)] == [0.9, 0.8, 0.7]
    assert [b.score for b in kept(boxes, 0.3, max_overlap=0.6)] == [0.9, 0.8, 0.7]
    assert [b.score for b in kept(boxes, 0.3, max_overlap=0.5)] == [0.9, 0.7]
    assert [b.score for b in kept(boxes, 0.3, most=2, max_overlap=0.5)] == [0.9]  # the limit comes first


def test_rules_are_settings_with_the_official_values():
    found, wanted = {"cat": [at(1, 1, score=0.25), at(30, 1, score=0.5)]}, spec(clause("cat", 2))
    assert not judge(found, wanted).correct and judge(found, wanted, Rules(threshold=0.2)).correct
    counting = spec(clause("cat"), tag="counting")
    assert not judge(found, counting).correct and judge(found, counting, Rules(counting_threshold=0.4)).correct
    assert judge(found, wanted, Rules(threshold=0.2, max_objects=1)).reason == "expected cat>=2, found 1"
    beside = spec(clause("dog"), clause("cat", position=["right of", 0]))
    near = {"dog": [at(30, 30)], "cat": [at(36, 30)]}
    assert judge(near, beside).correct and not judge(near, beside, Rules(position_threshold=0.3)).correct
    for wrong in ({"threshold": 1.5}, {"max_objects": 0}, {"max_overlap": 0.0}, {"position_threshold": -1.0}):
        with pytest.raises(TastemakerError, match=next(iter(wrong))):
            Rules(**wrong)


def test_presence_and_counts():
    found = {"cat": [at(10, 10), at(40, 40)], "dog": []}
    assert judge(found, spec(clause("cat"))).correct
    assert judge(found, spec(clause("cat", 2))).correct
    assert judge(found, spec(clause("cat", 1))).correct  # more than asked is fine, unless excluded
    verdict = judge(found, spec(clause("cat", 3)))
    assert not verdict.correct and verdict.reason == "expected cat>=3, found 2"
    assert judge(found, spec(clause("dog"))).reason == "expected dog>=1, found 0"
    assert judge(found, spec(clause("fish"))).reason == "expected fish>=1, found 0"


@pytest.mark.parametrize("number, correct", [(1, False), (2, True), (3, False)])
def test_exclude_makes_counts_exact(number, correct):
    wanted = spec(clause("cat", 2), exclude=[clause("cat", 3)], tag="counting")
    assert judge({"cat": [at(10 * k, 10) for k in range(number)]}, wanted).correct == correct


def test_counting_asks_for_surer_boxes():
    two_and_a_half = {"cat": [at(10, 10, score=0.95), at(30, 30, score=0.95), at(50, 50, score=0.9)]}
    wanted = {"include": [clause("cat", 2)], "exclude": [clause("cat", 3)]}
    assert judge(two_and_a_half, {"tag": "counting", **wanted}).correct
    assert not judge(two_and_a_half, {"tag": "single_object", **wanted}).correct
    assert not judge({"cat": [at(1, 1, score=0.9)]}, {"tag": "counting", "include": [clause("cat")]}).correct
    assert judge({"cat": [at(1, 1, score=0.31)]}, spec(clause("cat"))).correct
    assert not judge({"cat": [at(1, 1, score=0.3)]}, spec(clause("cat"))).correct


def test_colours_are_asked_of_the_first_boxes_alone():
    found = {"cat": [at(1, 1, score=0.8, color="red"), at(2, 2, score=0.9, color="blue")]}
    assert judge(found, spec(clause("cat", color="blue"))).correct
    verdict = judge(found, spec(clause("cat", color="red")))
    assert not verdict.correct and verdict.reason == "expected red cat>=1, found 0 red; and 1 blue"
    assert (
        judge(found, spec(clause("cat", 2, color="red"))).reason
        == "expected red cat>=2, found 1 red; and 1 red, 1 blue"
    )
    assert not judge({"cat": [at(1, 1)]}, spec(clause("cat", color="red"))).correct


def test_a_position_must_hold_for_every_box_against_every_target():
    right = clause("dog", position=["right of", 0])
    found = {"cat": [at(10, 30)], "dog": [at(50, 30)]}
    assert judge(found, spec(clause("cat"), right)).correct
    wrong = judge({"cat": [at(50, 30)], "dog": [at(10, 30)]}, spec(clause("cat"), right))
    assert wrong.reason == "expected dog right of target, found left of target"
    two = {"cat": [at(10, 30), at(10, 50)], "dog": [at(50, 30), at(10, 10)]}
    assert not judge(two, spec(clause("cat"), clause("dog", 2, position=["right of", 0]))).correct
    assert judge(
        {**two, "dog": [at(50, 30), at(50, 10)]}, spec(clause("cat", 2), clause("dog", 2, position=["right of", 0]))
    ).correct
    best_first = {"cat": [at(10, 30)], "dog": [at(0, 30, score=0.5), at(50, 30, score=0.9)]}
    assert judge(best_first, spec(clause("cat"), right)).correct  # only the first `count` are asked


def test_a_position_against_a_failed_target_fails():
    right = clause("dog", position=["right of", 0])
    verdict = judge({"cat": [at(10, 30, color="red")], "dog": [at(50, 30)]}, spec(clause("cat", color="blue"), right))
    assert verdict.reason.endswith("no target for dog to be right of") and verdict.satisfied == 0
    chain = spec(clause("cat"), right, clause("key", position=["above", 1]))
    boxes = {"cat": [at(50, 30)], "dog": [at(10, 30)], "key": [at(10, 0)]}
    assert "no target for key" in judge(boxes, chain).reason  # the dog was there, but not where it should be


def test_a_position_that_points_ahead_is_an_error():
    ahead = spec(clause("dog", position=["right of", 1]), clause("cat"))
    with pytest.raises(TastemakerError, match="dog.*entry 1.*after"):
        judge({"cat": [at(10, 30)], "dog": [at(50, 30)]}, ahead)


def test_satisfied_is_the_share_of_clauses_that_hold():
    found = {"cat": [at(10, 10, color="red")]}
    both = spec(clause("cat", color="red"), clause("dog", color="blue"))
    assert judge(found, both).satisfied == 0.5 and not judge(found, both).correct
    with_limit = spec(clause("cat"), clause("dog"), clause("key"), exclude=[clause("cat", 1)])
    assert judge(found, with_limit).satisfied == 0.25
    assert judge({}, with_limit).satisfied == 0.25  # the cat is not there too often
    assert judge(found, spec(clause("cat"))) == judge(found, spec(clause("cat"))) and judge(found, spec()).correct
