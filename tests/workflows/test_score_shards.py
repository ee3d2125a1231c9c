"""Scoring shards: every picture once, whatever is killed; what is amiss named; what is scored left alone."""

import io
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from shard_files import expected, members_of, png, write_folder, write_rewards, write_table, write_tar

from tastemaker.data.shard_ledger import NAME, open_ledger, read_ledger, read_scored
from tastemaker.data.shards import Words, list_shards, stamp
from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.workflows.shards import Options, score, score_shards

EACH = 6  # pictures of a shard


@pytest.fixture
def rewards(tmp_path):
    return write_rewards(tmp_path)


@pytest.fixture
def shards(tmp_path):
    """Six of EACH pictures with numbers of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(4):
        write_tar(folder / f"{k}.tar", members_of(range(k * EACH, (k + 1) * EACH)))
    write_table(folder / "4.parquet", range(4 * EACH, 5 * EACH))
    write_folder(folder / "5", range(5 * EACH, 6 * EACH))
    return folder


def run(rewards, path, out, console=None, **options):
    return score_shards(rewards, path, out, Options(**options), console or Console(file=io.StringIO(), width=200))


def once(out, name="bright", count=6 * EACH):
    """Every picture has one score, its own; and every shard one commit for it."""
    found = {}
    for shard in read_scored(out, [name]):
        for key, value in zip(shard.keys, shard.values[:, 0].tolist()):
            assert key not in found, f"{key} twice"
            found[key.removesuffix(".png")] = value
    assert found == pytest.approx({f"{i:05d}": expected(i) for i in range(count)}, abs=1e-6)
    lines = [json.loads(line) for line in (out / NAME).read_text().splitlines()]
    commits = [line["shard"] for line in lines if name in line["columns"]]
    assert len(commits) == len(set(commits)) and not list(out.rglob("*.partial"))


def test_a_file_beside_each_shard_says_what_was_scored_with_what(shards, rewards):
    report = run([rewards["Bright"], rewards["Words"]], shards, None, batch=4)
    assert (report.shards, report.rows, report.unscored) == (6, 6 * EACH, 0)
    table = pq.read_table(shards / "0.bright.scores.parquet")
    assert table.column_names == [
        "key",
        "sha256",
        "caption",
        "score",
        "error",
        "model",
        "weight_hash",
        "preprocessing",
    ]
    row = table.to_pylist()[3]
    assert (row["key"], row["caption"], row["model"], row["weight_hash"]) == ("00003", "picture 3", "mean", "1")
    assert row["error"] is None and len(row["sha256"]) == 64
    once(shards)
    both = {s.shard: s for s in read_scored(shards, ["words", "bright"])}
    assert both["5/"].values[0].tolist() == [float(len("picture 30")), pytest.approx(expected(30))]
    again = run([rewards["Bright"], rewards["Words"]], shards, None)  # files of scores are no shards
    assert (again.shards, again.kept) == (0, 6)


def test_a_reward_that_is_added_later_leaves_the_others_untouched(shards, rewards, tmp_path):
    out = tmp_path / "out"
    run([rewards["Bright"]], shards, out)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*.bright.scores.parquet")}
    assert len(before) == 6
    report = run([rewards["Bright"], rewards["Words"]], shards, out)
    assert report.shards == 6 and len(list(out.rglob("*.words.scores.parquet"))) == 6
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before
    once(out, "bright")


def test_a_shard_is_scored_the_same_in_any_batch_and_in_windows_of_several_sizes(tmp_path, rewards):
    sizes = [(4, 4), (4, 6), (8, 4)]
    members = [(f"{i:05d}.png", png(i, sizes[i % 3])) for i in range(25)]
    write_tar(tmp_path / "a.tar", members)
    found = []
    for batch in (1, 3, 64):
        run([rewards["Bright"]], tmp_path / "a.tar", tmp_path / str(batch), batch=batch, words=Words(prompt=""))
        (shard,) = read_scored(tmp_path / str(batch), ["bright"])
        assert shard.keys == tuple(f"{i:05d}" for i in range(25)) and set(shard.captions[0]) == {""}
        found.append(shard.values)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_what_is_wrong_is_a_row_with_its_reason_and_costs_nothing_else(shards, rewards, tmp_path):
    out = tmp_path / "out"
    more = [*members_of([60]), ("61.png", png(61)), ("62.png", b"no picture"), ("62.txt", b"w"), *members_of([60])]
    write_tar(shards / "6.tar", more)
    cut = write_tar(shards / "7.tar", members_of(range(80, 90)))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: 10 * 1024 + 700])
    (shards / "8.parquet").write_bytes(b"nothing")
    printed = io.StringIO()
    with pytest.raises(TastemakerError, match="7.tar is no whole.*after '00085'.*8.parquet is no whole Parquet"):
        run([rewards["Bright"]], shards, out, Console(file=printed, width=300))
    text = printed.getvalue()
    for said in ("6.tar has no caption for '61'", "cannot read 6.tar: 62 as a picture", "duplicate key: '00060'"):
        assert f"no score: {said}" in text
    found = {s.shard: s for s in read_scored(out, ["bright"])}
    bad = found["6.tar"]
    assert bad.keys == ("00060", "61", "62", "00060")
    assert bad.values.isnan()[:, 0].tolist() == [False, True, True, True]
    assert [error is None for error in bad.errors] == [True, False, False, False] and all(bad.sha256)
    assert len(found["7.tar"].keys) == 6 and "8.parquet" not in found
    assert read_ledger(out)["6.tar"]["bright"].unscored == 3
    with pytest.raises(TastemakerError, match="7.tar is no whole.*8.parquet"):  # named again, not scored again
        run([rewards["Bright"]], shards, out)
    cut.write_bytes(whole)  # mended
    (shards / "8.parquet").unlink()
    assert run([rewards["Bright"]], shards, out).rows == 10


def test_a_shard_that_was_changed_is_named_and_keeps_its_scores_until_asked(shards, rewards, tmp_path):
    out = tmp_path / "out"
    run([rewards["Bright"]], shards, out)
    os.utime(shards / "2.tar")  # touched, not changed
    assert run([rewards["Bright"]], shards, out).kept == 6
    assert read_ledger(out)["2.tar"]["bright"].stamp == stamp(list_shards(shards)[2])
    write_tar(shards / "1.tar", members_of(range(100, 103)))
    with pytest.raises(TastemakerError, match=r"1.tar was changed since it was scored \(sha256 .*--again replaces"):
        run([rewards["Bright"], rewards["Words"]], shards, out)
    assert "words" not in read_ledger(out)["1.tar"]
    assert len({s.shard: s for s in read_scored(out, ["bright"])}["1.tar"].keys) == EACH
    with pytest.raises(TastemakerError, match="1.tar has no scores of words"):
        list(read_scored(out, ["bright", "words"]))
    run([rewards["Words"]], shards, out, again=True)
    with pytest.raises(TastemakerError, match="1.tar was changed between the scoring of bright, words"):
        list(read_scored(out, ["bright", "words"]))
    run([rewards["Bright"]], shards, out, again=True)
    assert len({s.shard: s for s in read_scored(out, ["bright", "words"])}["1.tar"].keys) == 3
    stamped = (shards / "0.tar").stat()
    content = bytearray((shards / "0.tar").read_bytes())
    content[600] ^= 1
    (shards / "0.tar").write_bytes(content)
    os.utime(shards / "0.tar", ns=(stamped.st_atime_ns, stamped.st_mtime_ns))
    with pytest.raises(TastemakerError, match="0.tar was changed"):
        run([rewards["Bright"]], shards, out, verify=True)


def test_scores_of_two_versions_or_of_two_captions_are_never_mixed(shards, rewards, tmp_path):
    out = tmp_path / "out"
    run([rewards["Bright"]], shards, out)
    with pytest.raises(TastemakerError, match="'bright' is .*weight_hash='2'.* was scored with .*weight_hash='1'"):
        run([rewards["Brighter"]], shards, out)
    with pytest.raises(TastemakerError, match="'bright' gets prompt x, but .* was scored with field caption"):
        run([rewards["Bright"]], shards, out, words=Words(prompt="x"))
    assert run([rewards["Brighter"]], shards, out, again=True).shards == 6
    assert {e["bright"].columns["bright"].provenance.weight_hash for e in read_ledger(out).values()} == {"2"}
    said = json.dumps({"short": "ab"}).encode()
    write_tar(tmp_path / "j.tar", [("x.png", png(1)), ("x.json", said), ("x.txt", b"abcd")])
    for words in (Words(), Words("short")):
        run([rewards["Words"]], tmp_path / "j.tar", tmp_path / "j", words=words)
    (shard,) = read_scored(tmp_path / "j", ["words", "words@short"])
    assert shard.values.tolist() == [[4, 2]] and shard.captions == (("abcd",), ("ab",))


def test_files_that_are_missing_are_scored_again(shards, rewards, tmp_path):
    out = tmp_path / "out"
    run([rewards["Bright"]], shards, out)
    (out / "3.bright.scores.parquet").unlink()
    assert run([rewards["Bright"]], shards, out).shards == 1
    with pytest.raises(UnknownName, match="unknown score 'brigth'"):
        list(read_scored(out, ["brigth"]))


def test_a_line_of_the_ledger_that_was_cut_short_is_scored_again(shards, rewards, tmp_path):
    out = tmp_path / "out"
    run([rewards["Bright"]], shards, out)
    ledger = out / NAME
    content = ledger.read_bytes()
    ledger.write_bytes(content[:-40])
    (out / f".0.bright.scores.parquet.1{'.partial'}").write_bytes(b"half")
    assert len(read_ledger(out)) == 5
    assert run([rewards["Bright"]], shards, out).shards == 1
    once(out)
    with open_ledger(out), pytest.raises(TastemakerError, match="another command is writing scores to"):
        run([rewards["Bright"]], shards, out)
    ledger.write_bytes(b"{}\n" + content)
    with pytest.raises(TastemakerError, match="line 1 is no commit"):
        run([rewards["Bright"]], shards, out)


def test_a_reward_that_fails_ends_the_scoring_and_is_named_with_its_shard(shards, tmp_path):
    file = tmp_path / "fails.py"
    file.write_text("def score(images, prompts):\n    raise RuntimeError('no memory')\n")
    with pytest.raises(TastemakerError, match="0.tar: reward 'fails' raised RuntimeError: no memory"):
        run([str(file)], shards, tmp_path / "out", batch=4)
    assert read_ledger(tmp_path / "out") == {} and not list((tmp_path / "out").glob("*.parquet*"))


def forked(*arguments, **options):
    """The scoring in a copy of this process, which is quicker than one that imports everything anew."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        run(*arguments, **options)
        status = 0
    finally:
        os._exit(status)


@pytest.mark.timeout(120)
def test_kills_at_any_moment_leave_every_picture_scored_once(shards, rewards, tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW_REWARD", "0.01")
    out, draws, kills, status = tmp_path / "out", random.Random(0), 0, 1
    while status:
        child = forked([rewards["Bright"], rewards["Words"]], shards, out, batch=2)
        if kills < 12:
            time.sleep(draws.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
            kills += 1
        status = os.waitpid(child, 0)[1]
    once(out)
    once_more = run([rewards["Bright"], rewards["Words"]], shards, out)
    assert once_more.shards == 0 and kills >= 3


def kill_members(marks, count, done):
    """Kill so many of the processes that a reward ran in, one at a time, each a moment after it is seen."""
    draws, killed = random.Random(1), set()
    while not done.is_set() and len(killed) < count:
        for mark in list(marks.iterdir()):
            if int(mark.name) not in killed and len(killed) < count:
                time.sleep(draws.uniform(0, 0.1))
                killed.add(int(mark.name))
                os.kill(int(mark.name), signal.SIGKILL)
        time.sleep(0.01)
    return killed


def killed_while(scoring, marks, count):
    done, killed = threading.Event(), []
    killer = threading.Thread(target=lambda: killed.extend(kill_members(marks, count, done)))
    killer.start()
    try:
        scoring()
    finally:
        done.set()
        killer.join()
    return killed


@pytest.fixture
def marks(tmp_path, monkeypatch):
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("MARK_REWARD", str(folder))
    monkeypatch.setenv("SLOW_REWARD", "0.05")
    return folder


def test_workers_that_are_killed_are_replaced_and_their_shards_given_out_again(shards, rewards, tmp_path, marks):
    out = tmp_path / "out"
    killed = killed_while(lambda: run([rewards["Bright"]], shards, out, workers=2, batch=1), marks, 2)
    assert len(killed) == 2 and str(os.getpid()) not in {p.name for p in marks.iterdir()}
    once(out)


@pytest.mark.timeout(200)
def test_ray_workers_that_are_killed_are_replaced(shards, rewards, tmp_path, marks, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written to the home folder
    import ray

    out = tmp_path / "out"
    try:
        killed = killed_while(
            lambda: run([rewards["Bright"]], shards, out, ray="local", workers=2, batch=1), marks, 2
        )
        assert len(killed) == 2
        once(out)
        assert run([rewards["Bright"]], shards, out, ray="local").kept == 6
    finally:
        ray.shutdown()


def test_the_command_takes_shards_where_there_are_some(shards, rewards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    score([rewards["Bright"]], Path("in/5"), None, Options())
    assert (tmp_path / "scores.parquet").is_file()
    score([rewards["Bright"]], Path("in"), None, Options())
    once(shards)
    score([rewards["Bright"]], Path("in/5"), Path("folder"), Options())
    assert (tmp_path / "folder" / "5.bright.scores.parquet").is_file()
    with pytest.raises(TastemakerError, match="go into a folder: give --out DIR"):
        score([rewards["Bright"]], Path("in/0.tar"), Path("x.parquet"), Options())
