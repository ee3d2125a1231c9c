"""Shards from front to back: tars, tables and folders, and what is wrong with them by shard and key."""

import json

import pytest
from shard_files import members_of, png, write_folder, write_table, write_tar

from tastemaker.data.shards import (
    BrokenShard,
    Words,
    holds_files_of_shards,
    list_shards,
    samples,
    shard_hash,
    stamp,
)
from tastemaker.errors import TastemakerError, UnknownName


def read(path, **words):
    shard = list_shards(path)[0]
    return list(samples(shard, Words(**words)))


def test_every_kind_gives_the_same_samples(tmp_path):
    (tmp_path / "nested").mkdir()
    write_tar(tmp_path / "nested" / "a.tar", members_of(range(5)))
    write_table(tmp_path / "b.parquet", range(5))
    write_folder(tmp_path / "c", range(5))
    (tmp_path / "b.mine.scores.parquet").write_bytes(b"")
    (tmp_path / ".hidden.tar").write_bytes(b"")
    shards = list_shards(tmp_path)
    assert [(s.name, s.stem) for s in shards] == [("b.parquet", "b"), ("c/", "c"), ("nested/a.tar", "nested/a")]
    table, folder, tar = (list(samples(s, Words())) for s in shards)
    assert [s.key for s in tar] == [s.key for s in table] == [s.key.removesuffix(".png") for s in folder]
    for found in (tar, table, folder):
        assert [(s.content, s.caption, s.fault) for s in found] == [(png(i), f"picture {i}", "") for i in range(5)]
    assert holds_files_of_shards(tmp_path) and not holds_files_of_shards(tmp_path / "c")


def test_words_come_from_the_field_that_is_asked_for_or_from_the_command(tmp_path):
    said = json.dumps({"caption": "from json", "short": " a \n cat "}).encode()
    write_tar(tmp_path / "a.tar", [("x.png", png(1)), ("x.json", said), ("x.txt", b"from text"), ("y.png", png(2))])
    first, second = read(tmp_path / "a.tar")
    assert first.caption == "from text" and "a.tar has no caption for 'y'" in second.fault
    first, second = read(tmp_path / "a.tar", field="short")
    assert first.caption == "a cat" and "a .json with `short`" in second.fault
    assert [(s.caption, s.fault) for s in read(tmp_path / "a.tar", prompt="all")] == [("all", "")] * 2
    assert (Words().column("r"), Words("short").column("r")) == ("r", "r@short")
    write_table(tmp_path / "b.parquet", [1, 2], short=["one", None])
    first, second = read(tmp_path / "b.parquet", field="short")
    assert (first.caption, second.fault) == ("one", "b.parquet has no `short` in row '00002'")
    with pytest.raises(UnknownName, match="unknown column 'long'.*b.parquet has no such words"):
        read(tmp_path / "b.parquet", field="long")
    (broken,) = read(write_tar(tmp_path / "c.tar", [("x.png", png(1)), ("x.json", b"{")]), field="short")
    assert "cannot read the caption c.tar: x.json" in broken.fault


def test_keys_that_come_twice_and_pictures_that_are_not_there_are_named(tmp_path):
    twice = [*members_of([1, 2, 1]), ("alone.txt", b"words"), ("note.npy", b"123")]
    found = read(write_tar(tmp_path / "a.tar", twice))
    assert [s.fault for s in found[:2]] == ["", ""] and len(found) == 5
    assert found[2].fault == "duplicate key: '00001' came before in a.tar" and found[2].content == png(1)
    assert found[3].fault == "a.tar has no picture of the key 'alone', only .txt"
    same = [("k.png", png(1)), ("k.txt", b"a"), ("k.png", png(2)), ("k.txt", b"b")]
    assert ["duplicate" in s.fault for s in read(write_tar(tmp_path / "b.tar", same))] == [False, True]
    write_table(tmp_path / "c.parquet", [1, 2, 1], image=[png(1), None, png(1)])
    faults = [s.fault for s in read(tmp_path / "c.parquet")]
    assert faults == ["", "c.parquet has no bytes of a picture in row '00002'",
                      "duplicate key: '00001' came before in c.parquet"]  # fmt: skip


@pytest.mark.parametrize("keep", [0.3, 0.55, 0.8, 0.95])
def test_a_tar_that_is_cut_gives_what_is_before_the_cut_and_says_so(tmp_path, keep):
    path = write_tar(tmp_path / "a.tar", members_of(range(20)))
    content = path.read_bytes()[: 20 * 2 * 1024]  # without the end, which fills up to 10 KiB
    path.write_bytes(content[: int(len(content) * keep)])
    found = []
    with pytest.raises(BrokenShard, match="a.tar is no whole, uncompressed tar: .*, after '000"):
        found.extend(samples(list_shards(path)[0], Words()))  # what came before the error is kept
    whole = [s for s in found if not s.fault]
    assert [(s.key, s.content) for s in whole] == [(f"{i:05d}", png(i)) for i in range(len(whole))]
    assert len(whole) >= int(20 * keep) - 1 and len(found) - len(whole) <= 1


def test_a_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", members_of(range(6)))
    content = bytearray(path.read_bytes())
    content[4 * 1024 : 4 * 1024 + 300] = b"\xff" * 300
    path.write_bytes(content)
    found = []
    with pytest.raises(BrokenShard, match="damaged or cut off, after '00001'"):
        found.extend(samples(list_shards(path)[0], Words()))  # what came before the error is kept
    assert [(s.key, s.fault) for s in found] == [("00000", ""), ("00001", "")]


def test_what_is_no_shard_is_refused(tmp_path):
    with pytest.raises(TastemakerError, match="holds no shards"):
        list_shards(tmp_path)
    with pytest.raises(TastemakerError, match="holds no shards"):
        list_shards(tmp_path / "absent.tar")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(BrokenShard, match="a.parquet is no whole Parquet file"):
        read(tmp_path / "a.parquet")
    (tmp_path / "b.tar").write_bytes(b"\x1f\x8b and so on" * 100)
    with pytest.raises(BrokenShard, match="b.tar is no whole, uncompressed tar"):
        read(tmp_path / "b.tar")
    write_table(tmp_path / "c.parquet", [1])
    write_tar(tmp_path / "c.tar", members_of([1]))
    with pytest.raises(TastemakerError, match="c.parquet and c.tar would share c"):
        list_shards(tmp_path)


def test_stamps_and_hashes_tell_of_changes(tmp_path):
    write_folder(tmp_path / "c", range(3))
    folder, tar = list_shards(tmp_path / "c")[0], list_shards(write_tar(tmp_path / "a.tar", members_of([1])))[0]
    for shard, change in ((folder, tmp_path / "c" / "00001.txt"), (tar, tar.path)):
        before = stamp(shard), shard_hash(shard)
        assert (stamp(shard), shard_hash(shard)) == before
        change.write_bytes(change.read_bytes() + b"!")
        assert stamp(shard) != before[0] and shard_hash(shard) != before[1]
