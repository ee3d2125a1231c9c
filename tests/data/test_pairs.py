"""Pairs from votes, rankings, ratings and tables of scores; weights and parts by prompt."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tastemaker.data.pairs import (
    Pair,
    pairs_of,
    pairs_of_ratings,
    pairs_of_table,
    split_by_prompt,
    weigh_by_prompt,
    without_ties,
)
from tastemaker.data.ratings import read_ratings
from tastemaker.data.votes import Votes, split
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt, Ranking, Rating, Vote


def vote(choice, a="a", b="b", prompt="a cat", prompt_id="p0", annotator="ann"):
    return Vote(prompt_id, prompt, a, b, choice, annotator)


def test_every_choice_has_its_preference_and_a_skip_gives_no_pair():
    votes = Votes(tuple(vote(c) for c in ("a", "b", "tie", "both_bad", "skip")))
    assert [p.preference for p in pairs_of(votes)] == [1.0, 0.0, 0.5, 0.5]
    assert [p.preference for p in without_ties(pairs_of(votes))] == [1.0, 0.0]


def test_a_ranking_gives_every_two_pictures_and_equal_slots_are_ties():
    ranking = Ranking("p0", "a cat", ("a", "b", "c"), (5, 1, 1))
    found = {(p.image_a, p.image_b): p.preference for p in pairs_of(Votes(rankings=(ranking,)))}
    assert found == {("a", "b"): 0.0, ("a", "c"): 0.0, ("b", "c"): 0.5}


def test_pictures_become_files_where_they_are_known_and_prompts_keep_their_check():
    known = Prompt("a cat", spec={"tag": "single_object", "include": [{"class": "cat", "count": 1}]})
    votes = Votes((vote("a"),), pictures={"a": Path("x/a.png")}, prompts={"p0": known}, folder=Path("/data"))
    (pair,) = pairs_of(votes)
    assert (pair.image_a, pair.image_b) == (Path("/data/x/a.png"), "b")
    assert pair.prompt.spec == known.spec


def test_ratings_are_compared_within_annotator_and_prompt_and_the_later_mark_counts():
    def rate(image, value, annotator, scale="overall"):
        return Rating("p0", "a cat", image, scale, value, annotator)

    ratings = (rate("a", 1, "u"), rate("b", 4, "u"), rate("a", 6, "u"), rate("b", 7, "w"), rate("a", 2, "w"))
    votes = Votes(ratings=(*ratings, rate("c", 7, "u", "fidelity")))
    found = [(p.image_a, p.image_b, p.preference) for p in pairs_of_ratings(votes)]
    assert found == [("a", "b", 1.0), ("b", "a", 1.0)]
    assert [p.preference for p in pairs_of_ratings(votes, margin=2)] == [0.5, 1.0]
    with pytest.raises(TastemakerError, match="nobody rated on the scale 'beauty'; there are: fidelity, overall"):
        pairs_of_ratings(votes, "beauty")


def test_each_prompt_weighs_one_whatever_its_number_of_pictures():
    rankings = (
        Ranking("p0", "a cat", tuple("abcd"), (1, 2, 3, 4)),
        Ranking("p1", "a dog", tuple("efg"), (1, 1, 2)),
    )
    pairs = weigh_by_prompt(pairs_of(Votes(rankings=rankings)))
    weights = Counter()
    for p in pairs:
        weights[p.prompt_id] += p.weight
    assert weights == pytest.approx({"p0": 1, "p1": 1})
    assert pairs[0].weight == pytest.approx(1 / 6)  # 1 / C(4, 2)
    strict = weigh_by_prompt(without_ties(pairs))
    assert [p.weight for p in strict if p.prompt_id == "p1"] == [0.5, 0.5]


def many(count, shift=0):
    return [Pair(Prompt(f"prompt {i + shift}"), f"p{i}", "a", "b", 1.0) for i in range(count) for _ in range(3)]


def test_parts_share_no_prompt_have_their_shares_and_keep_a_prompt_when_others_come():
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    parts = split_by_prompt(many(2000), shares, seed=3)
    words = {name: {p.prompt.text for p in rows} for name, rows in parts.items()}
    assert sum(len(w) for w in words.values()) == 2000  # no prompt on two sides
    for name, share in shares.items():
        assert abs(len(words[name]) / 2000 - share) < 4 * np.sqrt(share * (1 - share) / 2000)
    again = split_by_prompt(many(2000) + many(500, shift=2000), shares, seed=3)
    assert all(words[name] <= {p.prompt.text for p in again[name]} for name in shares)
    assert words["test"] != {p.prompt.text for p in split_by_prompt(many(2000), shares, seed=4)["test"]}


def test_the_same_words_under_two_ids_lie_on_one_side():
    shares = {"train": 0.5, "test": 0.5}
    for i in range(50):
        pairs = [Pair(Prompt(text), id_, "a", "b", 1.0) for id_, text in (("x", f"A  Cat {i}"), ("y", f"a cat {i}"))]
        assert {len(rows) for rows in split_by_prompt(pairs, shares).values()} == {0, 2}


def test_wrong_shares_are_refused():
    for shares in ({}, {"a": 0.5, "b": 0.6}, {"a": 1.5, "b": -0.5}):
        with pytest.raises(TastemakerError, match="sum to 1"):
            split_by_prompt(many(1), shares)


def test_votes_are_split_as_their_pairs_are_and_take_their_pictures_along():
    rows = [vote("a", f"a{i}", f"b{i}", f"prompt {i}", f"p{i}") for i in range(200)]
    pictures = {name: Path(name) for v in rows for name in (v.image_a, v.image_b)}
    rankings = tuple(Ranking(v.prompt_id, v.prompt, (v.image_a, v.image_b), (1, 2)) for v in rows)
    prompts = {v.prompt_id: Prompt(v.prompt) for v in rows}
    votes = Votes(tuple(rows), (), rankings, pictures, prompts)
    shares = {"train": 0.7, "test": 0.3}
    parts, pairs = split(votes, shares, seed=1), split_by_prompt(pairs_of(votes), shares, seed=1)
    for name, part in parts.items():
        assert {p.prompt_id for p in pairs[name]} == {v.prompt_id for v in part.votes} == set(part.prompts)
        assert {r.prompt_id for r in part.rankings} == set(part.prompts)
        assert set(part.pictures) == {n for v in part.votes for n in (v.image_a, v.image_b)}
    assert sum(len(part.votes) for part in parts.values()) == 200


# tables of scores

HEADER = "file,prompt,generator,setting,mos_quality,std_quality,mos_align\n"
ROWS = (
    '1.png,"a cat, sitting",sd,low,1.0,0.1,2.0\n'
    '2.png,"a cat, sitting",sd,high,3.0,0.1,\n'
    '3.png,"a cat, sitting",gan,low,3.0,0.1,1.0\n'
    "4.png,a dog,gan,low,2.0,0.1,1.0\n"
)


@pytest.fixture
def table(tmp_path):
    for i in range(1, 5):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{i}.png").write_bytes(b"picture")
    (tmp_path / "ratings.csv").write_text(HEADER + ROWS)
    return tmp_path / "ratings.csv"


def test_a_ratings_table_is_read_as_it_is(table):
    ratings = read_ratings(table)
    assert len(ratings) == 4 and ratings.images[0] == table.parent / "images" / "1.png"
    assert ratings.settings == ("sd low", "sd high", "gan low", "gan low")
    assert len(set(ratings.prompt_ids)) == 2
    assert set(ratings.scores) == {"mos_quality", "std_quality", "mos_align"}
    assert ratings.score("quality").tolist() == [1, 3, 3, 2]
    assert np.isnan(ratings.score("alignment")).tolist() == [False, True, False, False]
    assert len(read_ratings(table.parent)) == 4  # the folder


def test_scores_become_same_prompt_pairs_and_a_missing_one_leaves_its_picture_out(table):
    ratings = read_ratings(table)
    quality = [(p.image_a.stem, p.image_b.stem, p.preference) for p in pairs_of_table(ratings, "quality")]
    assert quality == [("1", "2", 0.0), ("1", "3", 0.0), ("2", "3", 0.5)]
    assert [(p.image_a.stem, p.preference) for p in pairs_of_table(ratings, "alignment")] == [("1", 1.0)]
    with pytest.raises(UnknownName, match="beauty"):
        pairs_of_table(ratings, "beauty")


@pytest.mark.parametrize(
    "rows, message",
    [
        (ROWS.replace("1.0,0.1,2.0", "one,0.1,2.0"), "line 2 column `mos_quality`: expected a number, got 'one'"),
        (ROWS.replace("3.png", "9.png"), "line 4 column `file`: there is no picture 9.png"),
        (ROWS.replace("a dog", ""), "line 5 column `prompt`: expected a value"),
        (ROWS + "4.png,a dog\n", "line 6: expected 7 columns, got 2"),
        (ROWS + "4.png,a dog,a,b,1,2,3,4\n", "line 6: expected 7 columns, got more than 7"),
        ("", "holds no ratings"),
    ],
)
def test_a_bad_row_is_named(table, rows, message):
    table.write_text(HEADER + rows)
    with pytest.raises(TastemakerError, match=message):
        read_ratings(table)


def test_a_table_without_a_needed_column_is_refused(table):
    table.write_text("picture,prompt,mos\n1.png,a cat,1\n")
    with pytest.raises(UnknownName, match="needs one of: file, image"):
        read_ratings(table)
    table.write_text("file,prompt\n1.png,a cat\n")
    with pytest.raises(TastemakerError, match="no column of scores"):
        read_ratings(table)
