"""Two processes, really started by torchrun, do what one does with the same batch: every method that trains a
generator, with whole weights and with weights in parts; their buffers, checkpoints, resuming and refusals."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import processes_worker
import pytest
import torch
from processes_worker import CUT, SETTINGS, SHARDED
from small import tiny_flow, tiny_masked

from tastemaker import ranks
from tastemaker.cli.main import main
from tastemaker.errors import TastemakerError
from tastemaker.report.metrics import read_metrics
from tastemaker.workflows import processes
from tastemaker.workflows.checkpoints import newest_checkpoint
from tastemaker.workflows.load import load_generator

WORKER = Path(processes_worker.__file__)
TOLERANCE = 1e-5  # of a weight that may move by 3e-4 in three steps: sums of float32 in another order
# A group norm of one channel a group takes these away: their gradient is rounding, of which AdamW makes whole steps.
WITHOUT_EFFECT = ("down.first.bias", "up.first.bias", "up.second.bias", "up.skip.bias")
REWARD = """
import torch


def redness(images, prompts):
    red = images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))
    tilted = images[:, 0, 0, 0] > images[:, 0, -1, -1] + 0.15
    return torch.where(tilted, torch.nan, red)  # some pictures have no score


redness.differentiable = True
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the runs of one process in `one`, and of two in `two`."""
    folder = tmp_path_factory.mktemp("processes")
    tiny_flow().save(folder / "model")
    tiny_masked().save(folder / "masked")
    (folder / "reward.py").write_text(REWARD)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        two = subprocess.Popen(
            [*launch, WORKER, "two"],
            env=alone | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes_worker.all_of(SETTINGS, Path("one"))
        said, _ = two.communicate(timeout=200)
        assert two.returncode == 0, said[-12000:]
        yield folder


def weights(run, without=()):
    generator = load_generator(str(run))
    return torch.cat([p.detach().flatten() for n, p in generator.parts.named_parameters() if not n.endswith(without)])


def moved(run):
    """How far the furthest weight went."""
    return float((weights(run) - weights("masked" if run.name == "masked-grpo" else "model")).abs().max())


@pytest.mark.parametrize("way, name", [*(("two", n) for n in SETTINGS), *(("two/sharded", n) for n in SHARDED)])
def test_two_processes_make_the_update_of_one(home, name, way):
    one, two = Path("one", name), Path(way, name)
    apart = (weights(one, WITHOUT_EFFECT) - weights(two, WITHOUT_EFFECT)).abs()
    assert apart.max() < TOLERANCE and apart.mean() < TOLERANCE / 100, (apart.max(), apart.mean())
    if name != "pretrain":  # which begins with weights of its own
        assert moved(one) > 20 * TOLERANCE
    rows = [read_metrics(run / "metrics.jsonl") for run in (one, two)]
    for alone, together in zip(*rows, strict=True):
        assert alone.keys() == together.keys()
        known = {k: v for k, v in alone.items() if k != "seconds"}
        assert known == pytest.approx({k: together[k] for k in known}, rel=1e-3, abs=2e-5)


@pytest.mark.parametrize("way, name", [(way, name) for way, names in CUT.items() for name in names])
def test_they_go_on_bit_for_bit(home, name, way):
    whole, resumed = Path(way, name), Path(way, "resumed", name)
    assert torch.equal(weights(whole), weights(resumed))
    rows = [read_metrics(run / "metrics.jsonl") for run in (whole, resumed)]
    assert [{**a, "seconds": 0} for a in rows[0]] == [{**b, "seconds": 0} for b in rows[1]]


def test_each_keeps_its_rows_of_the_buffer_and_the_first_all_else(home):
    parts = [saved(f"two/drl/checkpoints/step-000003{part}.pt") for part in ("", "-rank-1")]
    assert [set(p) for p in parts] == [{"training", "watch", "round"}, {"round"}]
    whole = saved("one/drl/checkpoints/step-000003.pt")["round"]["tensors"]["x"]  # (T, N, 3, H, W)
    found = torch.cat([p["round"]["tensors"]["x"] for p in parts], 1)
    assert [p["round"]["tensors"]["x"].shape[1] for p in parts] == [4, 4]
    torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-4)


def test_of_sharded_weights_each_keeps_its_parts(home):
    parts = [saved(f"two/sharded/drl/checkpoints/step-000003{part}.pt")["training"] for part in ("", "-rank-1")]
    whole = saved("one/drl/checkpoints/step-000003.pt")["training"]
    for kind in ("weights", "ema"):
        sizes = [sum(v.numel() for v in p[kind].values()) for p in (*parts, whole)]
        assert sizes[0] + sizes[1] == sizes[2] and min(sizes[:2]) > 0.4 * sizes[2]
    moments = [sum(v["exp_avg"].numel() for v in p["optimiser"]["state"].values()) for p in (*parts, whole)]
    assert moments[0] + moments[1] == moments[2]


def saved(path):
    return torch.load(path, weights_only=True)["state"]


def test_another_number_of_processes_is_refused(home, capsys):
    shutil.copytree("two/drl", "other")
    assert main(["train", "drl", "--resume", "other"]) == 2
    assert "processes: 2 -> 1" in capsys.readouterr().err
    assert main(["train", "drl", "--resume", "two/sharded/drl"]) == 2
    assert "sharded: True -> False" in capsys.readouterr().err


def test_a_part_that_is_damaged_is_passed_over(home):
    shutil.copytree("two/drl", "damaged")
    Path("damaged/checkpoints/step-000003.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="step-000003.pt is damaged"):
        found = newest_checkpoint(Path("damaged/checkpoints"))
    assert found == Path("damaged/checkpoints/step-000002.pt")


def test_rows_that_cannot_be_shared_evenly_are_refused(monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 3)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    assert ranks.own(list(range(6))) == [2, 3]
    assert ranks.part(7) == [3, 4, 5] and ranks.part(2) == [1]
    with pytest.raises(TastemakerError, match="3 processes can share evenly, got 4"):
        ranks.own(torch.arange(4))


def test_a_command_for_one_process_is_refused_in_several(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "clip", "steps=1", "--out", str(tmp_path / "run")]) == 2
    assert "runs in one process, and 2 were started" in capsys.readouterr().err


def test_alone_nothing_is_joined_or_sharded(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert processes.spread(tiny_flow().network) is None and not processes.wants_shards()
    rows = torch.arange(4.0)
    assert ranks.own(rows).equal(rows) and ranks.gather(rows).equal(rows) and ranks.part(3) == [0, 1, 2]
