"""Foreign formats: what others read is right, and nothing is lost in either direction."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from votes_sample import WORDS, sample_votes, write_picture

from tastemaker.data.formats import READERS, WRITERS, recognise
from tastemaker.data.formats.rows import prompt_id_of
from tastemaker.data.votes import Votes, read_votes, write_votes
from tastemaker.errors import TastemakerError
from tastemaker.records import Ranking, Vote

FOREIGN = [name for name in WRITERS if name not in ("jsonl", "csv", "parquet")]


def at_hand(votes: Votes) -> Votes:
    """Without the vote on a picture that is not a file, which Pick-a-Pic cannot hold."""
    known = tuple(v for v in votes.votes if v.image_b in votes.pictures)
    return Votes(known, votes.ratings, votes.rankings, votes.pictures, votes.prompts, votes.folder)


@pytest.mark.parametrize("format", FOREIGN)
def test_the_answers_as_given_lie_beside_every_aggregate_and_come_back(tmp_path, format):
    votes = at_hand(sample_votes(tmp_path / "here"))
    files = write_votes(votes, tmp_path / "there", format)
    assert files[-1].name == "raw.jsonl" and len(files) >= 2
    again = read_votes(tmp_path / "there")
    assert (again.votes, again.ratings, again.rankings) == (votes.votes, votes.ratings, votes.rankings)
    assert dict(again.prompts) == dict(votes.prompts) and dict(again.pictures) == dict(votes.pictures)
    for file in files[:-1]:  # the foreign file alone is recognised, and its pictures are the same
        assert recognise(file) in READERS
        alone = read_votes(file)
        assert len(alone) and set(alone.pictures) <= set(votes.pictures)


# ImageReward


def imagereward_rows():
    return [
        {
            "id": "000001-0001",
            "prompt": WORDS,
            "generations": ["x/1.png", "x/2.png", "x/3.webp"],
            "ranking": [1, 5, 1],
        },
        {"id": "000001-0002", "prompt": "a dog", "generations": ["4.webp", "5.webp"], "ranking": [2, 1], "by": "lab"},
    ]


def test_imagerewards_file_comes_back_as_it_was(tmp_path):
    write_picture(tmp_path / "x" / "1.png", 0)
    write_picture(tmp_path / "x" / "2.png", 0)  # the same content under another name
    (tmp_path / "test.json").write_text(json.dumps(imagereward_rows()))
    votes = read_votes(tmp_path / "test.json")
    first = votes.rankings[0]
    assert first.images[0] == first.images[1] != first.images[2] == "x/3.webp" and first.slots == (1, 5, 1)
    (made, _) = write_votes(votes, tmp_path / "out", "imagereward")
    assert json.loads(made.read_text()) == imagereward_rows()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ranking": [1, 2]}, r"row 1 column `ranking`: expected 3 whole numbers"),
        ({"ranking": [0, 1, 2]}, r"row 1 column `ranking`: expected slots counted from 1"),
        ({"ranking": [1, 2, "x"]}, r"row 1 column `ranking`: expected a list of whole numbers"),
        ({"generations": []}, r"row 1 column `generations`: expected a list of names"),
        ({"prompt": None}, r"row 1 column `prompt`: expected words"),
    ],
)
def test_a_bad_row_of_imagereward_is_named(tmp_path, change, message):
    (tmp_path / "test.json").write_text(json.dumps([imagereward_rows()[0] | change]))
    with pytest.raises(TastemakerError, match=message):
        read_votes(tmp_path / "test.json")


def test_several_peoples_answers_become_one_order(tmp_path):
    votes = Votes(rankings=tuple(Ranking("p", "a cat", ("a", "b"), s, u) for u, s in (("u", (1, 2)), ("w", (1, 1)))))
    (made, raw) = write_votes(votes, tmp_path, "imagereward")
    assert json.loads(made.read_text()) == [
        {"id": "p", "prompt": "a cat", "generations": ["a", "b"], "ranking": [1, 2]}
    ]
    assert read_votes(raw).rankings == votes.rankings


# ImageRewardDB


def flat_rows():
    def row(image, prompt_id, prompt, count, rank, overall, alignment, fidelity):
        return {
            "image": image,
            "prompt_id": prompt_id,
            "prompt": prompt,
            "classification": "Animals",
            "image_amount_in_total": count,
            "rank": rank,
            "overall_rating": overall,
            "image_text_alignment_rating": alignment,
            "fidelity_rating": fidelity,
        }

    return [
        row("images/a.webp", "p0", WORDS, 3, 1, 7, 6, 5),
        row("images/b.webp", "p0", WORDS, 3, 4, 1, 2, 3),
        row("images/c.webp", "p0", WORDS, 3, 4, 2, 2, 2),
        row("images/d.webp", "p1", "a dog", 5, 1, 4, 4, 4),  # four of its pictures are in another file
    ]


def test_flat_rows_come_back_as_they_were_as_parquet_and_json(tmp_path):
    for suffix, name in ((".parquet", "imagerewarddb-flat"), (".json", "imagerewarddb-flat-json")):
        path = tmp_path / f"metadata{suffix}"
        if suffix == ".json":
            path.write_text(json.dumps(flat_rows()))
        else:
            pq.write_table(pa.Table.from_pylist(flat_rows()), path)
        votes = read_votes(path)
        assert len(votes.rankings) == 2 and len(votes.ratings) == 12
        assert {r.scale for r in votes.ratings} == {"overall", "alignment", "fidelity"}
        made = write_votes(votes, tmp_path / name, name)[0]
        back = json.loads(made.read_text()) if suffix == ".json" else pq.read_table(made).to_pylist()
        assert back == flat_rows()
        if suffix == ".parquet":
            assert pq.read_schema(made).field("rank").type == pa.int8()


def test_group_rows_are_flat_rows_gathered_and_come_back(tmp_path):
    (tmp_path / "flat.json").write_text(json.dumps(flat_rows()))
    votes = read_votes(tmp_path / "flat.json")
    for name in ("imagerewarddb-group", "imagerewarddb-group-json"):
        made = write_votes(votes, tmp_path / name, name)[0]
        rows = json.loads(made.read_text()) if made.suffix == ".json" else pq.read_table(made).to_pylist()
        assert rows[0]["rank"] == [1, 4, 4] and rows[0]["overall_rating"] == [7, 1, 2]
        again = read_votes(made)
        assert (again.rankings, again.ratings) == (votes.rankings, votes.ratings)


def test_pair_rows_name_the_better_one_first_and_leave_ties_out(tmp_path):
    (tmp_path / "flat.json").write_text(json.dumps(flat_rows()))
    made = write_votes(read_votes(tmp_path / "flat.json"), tmp_path / "out", "imagerewarddb-pair")[0]
    rows = pq.read_table(made).to_pylist()
    assert [(r["img_better"], r["img_worse"]) for r in rows] == [
        ("images/a.webp", "images/b.webp"),
        ("images/a.webp", "images/c.webp"),
    ]
    again = read_votes(made)
    assert [v.choice for v in again.votes] == ["a", "a"]
    twice = write_votes(again, tmp_path / "twice", "imagerewarddb-pair")[0]
    assert pq.read_table(twice).to_pylist() == rows


def test_pictures_inside_a_parquet_are_put_beside_it_by_their_content(tmp_path):
    digest = write_picture(tmp_path / "a.png", 0)
    content = (tmp_path / "a.png").read_bytes()
    row = flat_rows()[0] | {"image": {"bytes": content, "path": "a.png"}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data.parquet")
    votes = read_votes(tmp_path / "data.parquet")
    assert votes.rankings[0].images == (digest,)
    assert (votes.folder / votes.pictures[digest]).read_bytes() == content


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rank": 0}, r"row 2 column `rank`: expected a rank counted from 1"),
        ({"rank": None}, r"row 2 column `rank`: expected a number"),
        ({"overall_rating": "high"}, r"row 2 column `overall_rating`: expected a number"),
        ({"image": None}, r"row 2 column `image`: expected the path or the bytes"),
        ({"prompt": "another"}, r"row 2 column `prompt`: expected the words that .* row 1 has"),
    ],
)
def test_a_bad_flat_row_is_named(tmp_path, change, message):
    rows = flat_rows()
    (tmp_path / "flat.json").write_text(json.dumps([rows[0], rows[1] | change]))
    with pytest.raises(TastemakerError, match=message):
        read_votes(tmp_path / "flat.json")


def test_columns_that_have_no_place_are_kept(tmp_path):
    rows = [row | {"problem": i} for i, row in enumerate(flat_rows())]
    (tmp_path / "flat.json").write_text(json.dumps(rows))
    made = write_votes(read_votes(tmp_path / "flat.json"), tmp_path / "out", "imagerewarddb-flat-json")[0]
    assert json.loads(made.read_text()) == rows


# HPDv2


def test_hpdv2s_files_come_back_as_they_were(tmp_path):
    test = [
        {
            "prompt": "a cat",
            "image_path": ["1.jpg", "2.jpg", "3.jpg"],
            "rank": [1, 3, 2],
            "raw_annotations": [{"rank": [1, 2, 3], "user_hash": "u"}, {"rank": [1, 3, 2], "user_hash": "w"}],
        }
    ]
    train = [
        {"prompt": "a dog", "file_path": ["4.jpg", "5.jpg"], "human_preference": [0, 1]},
        {"prompt": "a dog", "file_path": ["4.jpg", "6.jpg"], "human_preference": [1, 0], "user_hash": "u", "x": 1},
    ]
    for name, rows in (("test.json", test), ("train.json", train)):
        (tmp_path / name).write_text(json.dumps(rows))
        votes = read_votes(tmp_path / name)
        assert all(a.prompt_id == prompt_id_of(a.prompt) for a in (*votes.votes, *votes.rankings))
        made = write_votes(votes, tmp_path / "out", "hpdv2")[0]
        assert made.name == name and json.loads(made.read_text()) == rows


def test_each_person_of_hpdv2_is_a_ranking_and_the_average_is_counted_where_none_was_given(tmp_path):
    rankings = tuple(
        Ranking("p", "a cat", images, slots, u)
        for u, images, slots in (("u", ("a", "b", "c"), (1, 2, 3)), ("w", ("c", "b", "a"), (3, 1, 2)))
    )
    made = write_votes(Votes(rankings=rankings), tmp_path, "hpdv2")[0]
    (row,) = json.loads(made.read_text())
    assert row["image_path"] == ["a", "b", "c"] and row["prompt_id"] == "p"
    assert [p["rank"] for p in row["raw_annotations"]] == [[1, 2, 3], [2, 1, 3]]
    assert row["rank"] == [1, 1, 2]  # a and b each beat the other once, and both c twice


def test_a_bad_row_of_hpdv2_is_named(tmp_path):
    row = {"prompt": "a", "file_path": ["1", "2"], "human_preference": [1, 1]}
    (tmp_path / "train.json").write_text(json.dumps([row]))
    with pytest.raises(TastemakerError, match=r"row 1 column `human_preference`: expected \[1, 0\]"):
        read_votes(tmp_path / "train.json")
    people = [{"rank": [1], "user_hash": "u"}]
    row = {"prompt": "a", "image_path": ["1", "2"], "rank": [1, 2], "raw_annotations": people}
    (tmp_path / "test.json").write_text(json.dumps([row]))
    with pytest.raises(TastemakerError, match=r"row 1 raw_annotations\[0\] column `rank`: expected 2 whole numbers"):
        read_votes(tmp_path / "test.json")


# Pick-a-Pic


def pickapic_table(tmp_path, labels=(1.0, 0.0), has=True, jpg=None):
    digests = [write_picture(tmp_path / f"{i}.png", i) for i in range(2)]
    contents = [(tmp_path / f"{i}.png").read_bytes() for i in range(2)]
    table = pa.table(
        {
            "are_different": [True],
            "best_image_uid": ["uid-0"],
            "caption": ["a cat"],
            "created_at": pa.array(["2023-02-17 12:00:00.123456789"]).cast(pa.timestamp("ns")),
            "has_label": [has],
            "image_0_uid": ["uid-0"],
            "image_0_url": ["u0"],
            "image_1_uid": ["uid-1"],
            "image_1_url": ["u1"],
            "jpg_0": pa.array([contents[0] if jpg is None else jpg], pa.binary()),
            "jpg_1": pa.array([contents[1]], pa.binary()),
            "label_0": [labels[0]],
            "label_1": [labels[1]],
            "model_0": ["m0"],
            "model_1": ["m1"],
            "ranking_id": [7],
            "user_id": [42],
            "num_example_per_prompt": [3],
            "__index_level_0__": [9],
        }
    )
    pq.write_table(table, tmp_path / "pick.parquet")
    return tmp_path / "pick.parquet", table, digests


def test_pick_a_pics_rows_come_back_as_they_were(tmp_path):
    path, table, digests = pickapic_table(tmp_path)
    votes = read_votes(path)
    (vote,) = votes.votes
    assert (vote.image_a, vote.image_b, vote.choice, vote.annotator) == (*digests, "a", "42")
    assert (votes.folder / votes.pictures[digests[0]]).read_bytes() == table["jpg_0"][0].as_py()
    made = write_votes(votes, tmp_path / "out", "pickapic")[0]
    back = pq.read_table(made).select(table.column_names)
    assert [c for c in table.column_names if not back[c].equals(table[c])] == []


@pytest.mark.parametrize(
    "labels, has, choice", [((0.0, 1.0), True, "b"), ((0.5, 0.5), True, "tie"), ((0.0, 0.0), False, "skip")]
)
def test_pick_a_pics_labels(tmp_path, labels, has, choice):
    assert read_votes(pickapic_table(tmp_path, labels, has)[0]).votes[0].choice == choice


def test_pick_a_pic_holds_our_votes_with_pseudonym_and_all_choices(tmp_path):
    votes = at_hand(sample_votes(tmp_path / "here"))
    made = write_votes(votes, tmp_path / "there", "pickapic")[0]
    assert read_votes(made).votes == votes.votes
    rows = pq.read_table(made).to_pylist()
    assert [(r["label_0"], r["label_1"], r["has_label"]) for r in rows[2:]] == [
        (0.5, 0.5, True),
        (0.5, 0.5, True),
        (None, None, False),
    ]


def test_a_bad_row_of_pick_a_pic_is_named_and_no_picture_is_left_behind(tmp_path):
    path, _, _ = pickapic_table(tmp_path, labels=(1.0, 1.0))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TastemakerError, match=r"pick.parquet row 1 column `label_0`: expected 1 and 0"):
        read_votes(path)
    path, _, _ = pickapic_table(tmp_path, jpg=b"no picture")
    with pytest.raises(TastemakerError, match=r"row 1 column `jpg_0`: expected the bytes of a JPEG"):
        read_votes(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_pick_a_pic_needs_the_pictures(tmp_path):
    votes = Votes((Vote("p", "a cat", "a", "b", "a"),))
    with pytest.raises(TastemakerError, match="picture a is not at hand"):
        write_votes(votes, tmp_path, "pickapic")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_an_error_of_its_own_kind(tmp_path):
    """Cut, changed or with cells of other types: read as far as it is valid, or refused in a sentence."""
    rng, refused = random.Random(0), 0
    votes = at_hand(sample_votes(tmp_path / "here"))
    for format in WRITERS:
        for file in write_votes(votes, tmp_path / format, format):
            whole = file.read_bytes()
            for damaged in [*damages(rng, whole), *(odd_cells(rng, file) if file.suffix.startswith(".json") else [])]:
                file.write_bytes(damaged)
                try:
                    read_votes(file)
                except TastemakerError as error:
                    assert str(error)
                    refused += 1
            file.write_bytes(whole)
    assert refused > 300


def damages(rng, whole):
    for _ in range(6):
        i = rng.randrange(len(whole))
        yield whole[:i]
        yield whole[:i] + bytes([rng.randrange(256)]) + whole[i + 1 :]
        yield whole[:i] + whole[i + rng.randrange(1, 30) :]


def odd_cells(rng, file):
    text = file.read_text()
    rows = json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line]
    for _ in range(30):
        changed = json.loads(json.dumps(rows))
        row = rng.choice(changed)
        row[rng.choice(list(row))] = rng.choice(
            [None, 5, -1, 1.5, "", "x", [], [1], ["a"], {}, {"a": 1}, True, [[1]]]
        )
        lines = json.dumps(changed) if file.suffix == ".json" else "\n".join(map(json.dumps, changed))
        yield lines.encode()


def test_text_that_is_not_utf8_in_a_parquet_is_named(tmp_path):
    bad = pa.Array.from_buffers(
        pa.string(), 2, pa.array(["fine", "words"]).buffers()[:2] + [pa.py_buffer(b"fine\xff\xffrds")]
    )
    others = {c: ["x", "y"] for c in ("image_a", "image_b")}
    pq.write_table(pa.table({"prompt": bad, **others, "choice": ["a", "a"]}), tmp_path / "v.parquet")
    with pytest.raises(TastemakerError, match=r"row 2 column `prompt`: expected a value of type string"):
        read_votes(tmp_path / "v.parquet")
