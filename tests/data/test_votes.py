"""Our own formats: lossless there and back, and a bad row is named and nothing taken."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from votes_sample import sample_votes

from tastemaker.data.aggregate import mean_ratings, one_ranking_per_prompt, one_vote_per_pair
from tastemaker.data.votes import Votes, read_votes, write_votes
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.records import Prompt, Ranking, Rating, Vote


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_our_formats_give_back_what_they_were_given(tmp_path, format):
    votes = sample_votes(tmp_path / "here")
    files = write_votes(votes, tmp_path / "there", format)
    assert all(f.is_file() for f in files)
    again = read_votes(tmp_path / "there")
    assert (again.votes, again.ratings, again.rankings) == (votes.votes, votes.ratings, votes.rankings)
    assert dict(again.pictures) == dict(votes.pictures) and dict(again.prompts) == dict(votes.prompts)
    for path in votes.pictures.values():
        assert (again.folder / path).read_bytes() == (votes.folder / path).read_bytes()
    assert read_votes(files[0]) == again  # a file leads to the same as its folder


def test_writing_into_the_own_folder_copies_nothing(tmp_path):
    votes = sample_votes(tmp_path)
    before = sorted(tmp_path.rglob("*.png"))
    write_votes(votes, tmp_path, "jsonl")
    assert sorted(tmp_path.rglob("*.png")) == before


def test_a_table_by_hand_needs_only_prompt_pictures_and_choice(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n a")
    (tmp_path / "mine.csv").write_text("prompt,image_a,image_b,choice,mood\na cat,a.png,elsewhere/b.png,a,fine\n")
    votes = read_votes(tmp_path / "mine.csv")
    (vote,) = votes.votes
    assert votes.picture(vote.image_a) == tmp_path / "a.png" and len(vote.image_a) == 64
    assert vote.image_b == "elsewhere/b.png" and vote.about == {"mood": "fine"} and vote.prompt_id
    assert votes.prompts == {vote.prompt_id: Prompt("a cat")}


def test_a_path_out_of_the_folder_is_never_opened(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    row = {"prompt": "a cat", "image_a": "../secret.png", "image_b": str(tmp_path / "secret.png"), "choice": "a"}
    (tmp_path / "in" / "votes.jsonl").write_text(json.dumps({"kind": "vote", **row}))
    votes = read_votes(tmp_path / "in")
    assert votes.votes[0].image_a == "../secret.png" and not votes.pictures
    table = {"kind": "picture", "sha256": "a" * 64, "path": "../secret.png"}
    (tmp_path / "in" / "votes.jsonl").write_text(json.dumps(table))
    with pytest.raises(TastemakerError, match=r"row 1 column `path`: expected a path inside the folder"):
        read_votes(tmp_path / "in")


VOTE = {"kind": "vote", "prompt": "a cat", "image_a": "a", "image_b": "b", "choice": "a"}
RANKING = {"kind": "ranking", "prompt": "a cat", "images": ["a", "b"], "slots": [1, 2]}
RATING = {"kind": "rating", "prompt": "a cat", "image": "a", "scale": "overall", "value": 3}


@pytest.mark.parametrize(
    "row, message",
    [
        (VOTE | {"choice": "left"}, r"row 2 column `choice`: expected one of a, b, tie, both_bad, skip, got 'left'"),
        (VOTE | {"image_b": ""}, r"row 2 column `image_b`: expected words"),
        (VOTE | {"prompt": 5}, r"row 2 column `prompt`: expected words, got 5"),
        (VOTE | {"about": "[1]"}, r"row 2 column `about`: expected a JSON object"),
        (VOTE | {"kind": "opinion"}, r"row 2 column `kind`: expected one of vote, rating"),
        (RANKING | {"slots": [1]}, r"row 2 column `slots`: expected 2 whole numbers, one for each picture"),
        (RANKING | {"slots": [1, 1.5]}, r"row 2 column `slots`: expected a list of whole numbers"),
        (RATING | {"value": "good"}, r"row 2 column `value`: expected a number, got 'good'"),
        (RATING | {"value": float("inf")}, r"row 2 column `value`: expected a number"),
        ([1], r"row 2: expected an object with columns, got list"),
        ("not json", r"row 2: expected an object"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    (tmp_path / "votes.jsonl").write_text(json.dumps(VOTE) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(TastemakerError, match=message):
        read_votes(tmp_path / "votes.jsonl")


def test_bad_tables_are_named(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("prompt,image_a,image_b,choice\na cat,a,b,a\n\na cat,a,b\n")
    with pytest.raises(TastemakerError, match=r"votes.csv row 4: expected 4 columns"):
        read_votes(path)
    path.write_bytes("prompt,image_a,image_b,choice\nun été,a,b,a\n".encode("latin-1"))
    with pytest.raises(TastemakerError, match="not UTF-8"):
        read_votes(path)
    path.write_text("prompt,image_a,image_b\na cat,a,b\n")
    with pytest.raises(TastemakerError, match="cannot tell the format"):
        read_votes(path)
    (tmp_path / "ratings.parquet").write_bytes(b"no parquet")
    with pytest.raises(TastemakerError, match="as Parquet"):
        read_votes(tmp_path / "ratings.parquet")
    pq.write_table(
        pa.table({"prompt": ["a"], "image": ["x"], "scale": ["s"], "value": ["much"]}), tmp_path / "r.parquet"
    )
    with pytest.raises(TastemakerError, match=r"r.parquet row 1 column `value`: expected a number, got 'much'"):
        read_votes(tmp_path / "r.parquet")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(TastemakerError, match="there is no file"):
        read_votes(tmp_path / "nowhere")
    with pytest.raises(TastemakerError, match="no folder of votes"):
        read_votes(tmp_path)
    (tmp_path / "votes.jsonl").write_text("\n")
    with pytest.raises(TastemakerError, match="cannot tell|holds no votes"):
        read_votes(tmp_path)
    (tmp_path / "votes.txt").write_text("a")
    with pytest.raises(TastemakerError, match="expected a file of the kinds"):
        read_votes(tmp_path / "votes.txt")
    with pytest.raises(UnknownName, match="format of votes"):
        write_votes(Votes(), tmp_path, "xml")


def test_a_missing_picture_stops_the_export_before_anything_is_written(tmp_path):
    votes = sample_votes(tmp_path / "here")
    (votes.folder / next(iter(votes.pictures.values()))).unlink()
    with pytest.raises(TastemakerError, match="is missing"):
        write_votes(votes, tmp_path / "there", "csv")
    assert not list((tmp_path / "there").glob("*.csv"))


# aggregates


def test_a_single_ranking_stays_as_it_is_and_several_are_ordered_by_the_share_of_wins():
    alone = Ranking("p0", "a cat", ("a", "b", "c"), (5, 1, 1), "u")
    assert one_ranking_per_prompt(Votes(rankings=(alone,))) == [alone]
    other = Ranking("p0", "a cat", ("c", "b", "a"), (3, 1, 2), "w")
    (both,) = one_ranking_per_prompt(Votes(rankings=(alone, other)))
    # of four comparisons each: a wins 1 (over c), b 3.5, c 1.5
    assert dict(zip(both.images, both.slots)) == {"b": 1, "c": 2, "a": 3}
    votes = (
        Vote("p1", "a dog", "x", "y", "a"),
        Vote("p1", "a dog", "y", "x", "a"),
        Vote("p1", "a dog", "x", "y", "skip"),
    )
    (tied,) = one_ranking_per_prompt(Votes(votes))
    assert tied.slots == (1, 1) and tied.about["answers"] == 2


def test_most_votes_decide_a_pair_whichever_way_round_it_was_asked():
    def vote(a, b, choice):
        return Vote("p0", "a cat", a, b, choice, "u")

    (found,) = one_vote_per_pair(Votes((vote("a", "b", "a"), vote("b", "a", "b"), vote("a", "b", "tie"))))
    assert (found.image_a, found.choice, found.annotator) == ("a", "a", "")
    assert found.about == {"answers": 3, "for_a": 2, "for_b": 0, "ties": 1}
    (even,) = one_vote_per_pair(Votes((vote("a", "b", "a"), vote("a", "b", "b"))))
    assert even.choice == "tie"
    alone = vote("a", "b", "both_bad")
    assert one_vote_per_pair(Votes((alone,))) == [alone]


def test_ratings_are_averaged_by_picture_and_scale():
    marks = tuple(Rating("p0", "a cat", "a", "overall", v, u) for u, v in (("u", 3), ("w", 6)))
    assert mean_ratings(Votes(ratings=marks)) == {("p0", "a"): {"overall": 4.5}}


def test_paths_are_plain(tmp_path):
    votes = sample_votes(tmp_path)
    assert all(isinstance(p, Path) and not p.is_absolute() for p in votes.pictures.values())


def test_votes_and_their_statistics_need_no_torch():
    rooms = "data.votes data.formats data.pairs data.ratings annotate.statistics annotate.strengths annotate.select"
    names = [f"tastemaker.{room}" for room in [*rooms.split(), "annotate.active"]]
    code = f"import sys; sys.modules['torch'] = None; import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", code], check=True)
