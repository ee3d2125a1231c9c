"""`evaluate preference` by hand: which pairs count, who is ranked whole, and the ceiling beside the rewards."""

import itertools

import pytest
import torch

from tastemaker.data.pairs import Pair
from tastemaker.errors import TastemakerError
from tastemaker.records import Prompt, Provenance
from tastemaker.workflows.judged import Judged
from tastemaker.workflows.preference import figures_of, preference_figures, ranked_whole, row_scores

WORTH = {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0}


def pairs_of(prompt, order, tie=()):
    """Every two pictures, better first in `order`; those in `tie` are tied."""
    return [
        Pair(Prompt(prompt), prompt, x, y, 0.5 if {x, y} == set(tie) else 1.0)
        for x, y in itertools.combinations(order, 2)
    ]


def scores(prompts):
    return {(name, prompt): value for prompt in prompts for name, value in WORTH.items()}


def test_figures_by_hand():
    pairs = pairs_of("one", "abcd") + pairs_of("two", "dbca")  # in the second, people turn a and d round
    found = {name: v["value"] for name, v in figures_of(scores(["one", "two"]), pairs).items()}
    assert found["pair accuracy"] == pytest.approx((6 + 1) / 12)
    assert found["pair accuracy per prompt"] == pytest.approx((1 + 1 / 6) / 2)
    assert found["recall@1"] == 0.5 and found["filter@1"] == 0.5
    assert found["recall@2"] == 0.5 and "recall@4" not in found  # of four pictures nobody misses four


def test_ties_of_people_are_left_out_and_a_model_that_cannot_tell_gets_half():
    pairs = pairs_of("one", "abc", tie="ab")
    assert figures_of(scores(["one"]), pairs)["pair accuracy"] == pytest.approx(
        {"value": 1.0, "low": 1.0, "high": 1.0, "count": 2}
    )
    flat = dict.fromkeys(scores(["one"]), 0.0)
    assert figures_of(flat, pairs)["pair accuracy"]["value"] == 0.5


def test_only_prompts_that_are_ranked_whole_have_ranks():
    whole, part = pairs_of("one", "cab"), pairs_of("two", "abcd")[:-1]
    turned = [Pair(p.prompt, p.prompt_id, p.image_b, p.image_a, 1 - p.preference) for p in whole]
    rows, ranks, prompts = ranked_whole([*whole, *part, *turned])
    order = sorted(zip(ranks, rows))
    assert [name for _, (name, _) in order] == ["c", "a", "b"] and prompts == ["one"] * 3


class Mean:
    name, differentiable, range, provenance = "mean", True, (0.0, 1.0), Provenance("mean")

    def __init__(self):
        self.seen = 0

    def score(self, images, prompts):
        self.seen += len(images)
        return images.mean((1, 2, 3))


def test_every_picture_is_scored_once_whatever_its_size_and_the_ceiling_stands_beside():
    pairs = pairs_of("one", "abcd") + pairs_of("two", "ab")
    sizes = {"a": 8, "b": 8, "c": 4, "d": 8}
    judged = Judged(tuple(pairs), lambda n: torch.full((3, sizes[n], 8), WORTH[n] / 3), lambda chosen: 0.9)
    reward = Mean()
    found = row_scores([reward], pairs, judged.pictures)
    assert reward.seen == len(found) == 6 and found["a", "one"] == pytest.approx([1.0])
    result = preference_figures({"mine": reward}, pairs, judged)
    assert result["mine"]["preference"]["pair accuracy"]["value"] == 1.0
    assert result["ceiling"]["preference"]["pair accuracy"]["value"] == 0.9
    assert "tie of the model counts half" in result["summary"]


def test_votes_that_are_all_ties_are_an_error():
    with pytest.raises(TastemakerError, match="pairs that people decided"):
        figures_of(scores(["one"]), pairs_of("one", "ab", tie="ab"))
