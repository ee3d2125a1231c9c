"""The summary of simulated annotators whose habits are known."""

import json

import numpy as np
import pytest

from tastemaker.annotate.annotators import DEFAULT, Limits, alarms, annotator_rows, consistency, majority_agreement
from tastemaker.annotate.statistics import (
    pair_agreement,
    position_bias,
    ranking_agreement,
    rating_agreement,
    speed,
    summary,
    vote_agreement,
)
from tastemaker.records import Ranking, Rating, Vote


def vote(item, better, annotator, rng=None, **about):
    """A vote for picture 0 or 1 of an item, or another choice; shown in a random order."""
    shown = [0, 1] if rng is None else rng.permutation(2).tolist()
    choice = "ab"[better] if better in (0, 1) else better
    return Vote(f"p{item}", f"prompt {item}", f"{item}x", f"{item}y", choice, annotator, {"shown": shown, **about})


def test_two_people_who_always_agree():
    votes = [vote(i, i % 2, who) for i in range(20) for who in ("u", "w")]
    found = vote_agreement(votes)
    assert found["percent"] == found["alpha_nominal"] == found["fleiss"] == found["cohen"] == 1
    assert pair_agreement(votes) == {"agreed": 20, "of": 20, "share": 1.0}


def test_the_order_of_the_pair_does_not_matter():
    one = Vote("p", "a cat", "x", "y", "a", "u")
    other = Vote("p", "a cat", "y", "x", "b", "w")
    assert vote_agreement([one, other, vote(1, 1, "u"), vote(1, 1, "w")])["percent"] == 1
    assert pair_agreement([one, other])["agreed"] == 1


def test_noisy_people_agree_as_often_as_their_noise_says():
    """Right with probability 0.775 each: two agree with 0.775^2 + 0.225^2 = 0.651, the paper's level."""
    rng = np.random.default_rng(0)
    votes = [vote(i, int(rng.random() > 0.775), who) for i in range(2000) for who in "abc"]
    assert pair_agreement(votes)["share"] == pytest.approx(0.651, abs=0.02)


def test_votes_and_rankings_are_compared_with_each_other():
    ranking = Ranking("p0", "prompt 0", ("0y", "0x", "z"), (1, 2, 2), "w")
    found = pair_agreement([vote(0, 0, "u"), ranking, vote(0, "tie", "t")])
    assert (found["agreed"], found["of"]) == (0, 1)


def test_fleiss_is_left_out_where_pairs_have_different_numbers_of_answers():
    votes = [vote(0, 0, who) for who in "abc"] + [vote(1, 1, who) for who in "ab"]
    found = vote_agreement(votes)
    assert np.isnan(found["fleiss"]) and found["alpha_nominal"] == 1 and found["items"] == 2


def test_ratings_and_rankings_of_several_people():
    ratings = [
        Rating("p", "a cat", f"i{i}", scale, value + shift * (scale == "fidelity"), who)
        for i, value in enumerate([1.0, 3, 5, 7])
        for who, shift in (("u", 0), ("w", 1))
        for scale in ("overall", "fidelity")
    ]
    found = rating_agreement(ratings)
    assert found["overall"]["alpha_ordinal"] == found["overall"]["cohen_quadratic"] == 1
    assert found["fidelity"]["percent"] == 0 and found["fidelity"]["tau_b"] == pytest.approx(1)
    assert found["fidelity"]["alpha_nominal"] <= 0 < found["fidelity"]["alpha_interval"] < 1
    orders = [Ranking("p", "a", ("a", "b", "c"), (1, 2, 3), "u"), Ranking("p", "a", ("c", "b", "a"), (1, 2, 3), "w")]
    assert ranking_agreement(orders) == {"prompts": 1, "tau_b": -1.0, "kendall_w": 0.0}


def test_a_bias_for_the_left_is_seen_whichever_picture_stands_there():
    rng = np.random.default_rng(0)
    lefty = [v for i in range(200) for v in [vote(i, 0, "u", rng)]]
    lefty = [
        Vote(v.prompt_id, v.prompt, v.image_a, v.image_b, "ab"[v.about["shown"][0]], "u", v.about) for v in lefty
    ]
    fair = [vote(i, int(rng.random() < 0.5), "w", rng) for i in range(200)]
    found = position_bias(lefty)
    assert found["left"].value == 1 and found["biased"]
    assert not position_bias(fair)["biased"]
    assert position_bias([vote(0, "tie", "u")])["left"] is None
    unknown = Vote("p", "a cat", "x", "y", "a", "u")
    assert position_bias([unknown])["left"] is None


def test_repeats_are_compared_with_the_first_answer():
    votes = [vote(0, 0, "u"), vote(1, 1, "u"), vote(0, 0, "u", kind="repeat"), vote(1, 0, "u", kind="repeat")]
    turned = Vote("p0", "prompt 0", "0y", "0x", "b", "u")
    assert consistency(votes) == (1, 2)
    assert consistency([votes[0], turned]) == (1, 1)
    assert consistency([votes[0], vote(0, 0, "w")]) == (0, 0)


def test_an_event_is_one_act_however_many_marks_it_gave():
    marks = [Rating("p", "a", "x", s, 3, "u", {"ms": 8000, "event": 1}) for s in ("overall", "fidelity")]
    votes = [vote(i, 0, "u", ms=1000 * (i + 1), event=10 + i) for i in range(3)]
    assert speed([*marks, *votes]) == {"answers": 4, "median": 2.5, "p10": 1.3, "p90": pytest.approx(6.5)}


def test_the_majority_of_the_others_is_what_one_is_measured_by():
    votes = [vote(i, 0, who) for i in range(5) for who in "abc"] + [vote(i, 1, "d") for i in range(5)]
    assert majority_agreement(votes) == {**dict.fromkeys("abc", (5, 5)), "d": (0, 5)}
    split = majority_agreement([vote(0, 0, "a"), vote(0, 1, "b"), vote(0, 0, "c")])
    assert split == {"b": (0, 1)}  # for a and c the others are split


def habits():
    """Seven people: a fair one, and one for each bad habit."""
    rng = np.random.default_rng(0)
    votes = []
    for i in range(60):
        truth = int(rng.random() < 0.5)
        votes += [vote(i, truth, who, rng, ms=5000) for who in ("fair", "also fair")]
        votes.append(vote(i, truth, "fast", rng, ms=300))
        votes.append(vote(i, 1 - truth, "contrary", rng, ms=5000))
        left = vote(i, truth, "left", rng, ms=5000)
        votes.append(
            Vote(
                left.prompt_id,
                left.prompt,
                left.image_a,
                left.image_b,
                "ab"[left.about["shown"][0]],
                "left",
                left.about,
            )
        )
    for i in range(40):
        votes.append(vote(i, int(rng.random() < 0.5), "fickle", rng, ms=5000))
        votes.append(vote(i, int(rng.random() < 0.5), "fickle", rng, ms=5000, kind="repeat", counted=False))
        votes.append(vote(1000 + i, 0, "untested", rng, ms=5000, kind="gold", counted=False, right=i % 2 == 0))
    ratings = [Rating(f"p{i}", "x", f"{i}x", s, 4, "same") for i in range(30) for s in ("overall", "fidelity")]
    return votes, ratings


def test_each_bad_habit_raises_its_alarm_and_a_fair_person_none():
    votes, ratings = habits()
    raised = {
        row["annotator"]: [a.split(":")[0] for a in row["alarms"]] for row in annotator_rows(votes, ratings, [])
    }
    assert raised["fair"] == raised["also fair"] == []
    assert raised["fast"] == ["fast"]
    assert raised["contrary"] == ["majority"]
    assert {"position", "straight line"} <= set(raised["left"])
    assert "self consistency" in raised["fickle"]
    assert raised["untested"] == ["gold"]
    assert raised["same"] == ["straight line"]


def test_limits_are_settings_and_few_answers_raise_nothing():
    votes, ratings = habits()
    strict = Limits(seconds=10, consistency=1.01, gold=0, majority=0)
    fair = next(r for r in annotator_rows(votes, ratings, [], strict) if r["annotator"] == "fair")
    assert [a.split(":")[0] for a in fair["alarms"]] == ["fast"]
    few = annotator_rows([vote(i, 0, "u", ms=1) for i in range(10)], [], [])[0]
    assert few["alarms"] == [] and alarms(few | {"timed": 20}, DEFAULT) != []


def test_the_summary_is_json_and_leaves_out_what_does_not_count():
    votes, ratings = habits()
    found = json.loads(json.dumps(summary(votes, ratings, [Ranking("p", "a", ("a", "b"), (1, 2), "u")])))
    assert found["counts"] == {
        "votes": 340,
        "ratings": 60,
        "rankings": 1,
        "prompts": 61,
        "pictures": 122,
        "annotators": 8,
    }
    assert found["self_consistency"]["count"] == 40
    assert found["rankings"]["tau_b"] is None and found["choices"]["tie_rate"]["value"] == 0
    json.dumps(summary([], [], []))


def test_ties_skips_and_both_bad_have_their_rates():
    votes = [vote(i, c, "u") for i, c in enumerate([0, "tie", "both_bad", "skip", "skip"])]
    found = summary(votes, [], [])["choices"]
    assert found["tie_rate"]["value"] == pytest.approx(1 / 3) and found["skip_rate"]["value"] == pytest.approx(0.4)
    assert (found["choice_a"], found["both_bad_rate"]["count"]) == (1, 3)
