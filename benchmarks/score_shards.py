"""Scoring shards: what it costs beside the rewards' own forwards, its memory, and what kills cost.

    python -m benchmarks.score_shards --rows NAME ... [--images 96] [--repeats 3] [--kills 50] [--ray-kills 20]

dataset_scoring_overhead: four rewards of ImageReward's architecture with random weights (width 384, depth 12), two of
    a view each, over one decode of JPEGs of 512 x 512 in a tar, batch 32. Seconds of the processor, all threads, over
    the seconds inside the four forwards of the same call. Prints the pictures a second as well, for docs/scale.md.
dataset_scoring_memory_ratio: the peak of the process while a shard of --few and one of --many small pictures are
    scored, three rewards without weights.
scoring_kills: pictures that lack a score, or have more than one, after kill -9 of the command at --kills moments.
ray_kills: the same after the kill -9 of --ray-kills actors of a local Ray cluster, one after another.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from benchmarks.rows import write
from benchmarks.scoring import pictures, prompts, reward_of
from tastemaker.data.shard_ledger import NAME, read_ledger, read_scored
from tastemaker.data.shards import Words, list_shards
from tastemaker.encoders.pixels import CLIP_CROP, Squash
from tastemaker.picture_bytes import as_array
from tastemaker.rewards.imagereward import ImageReward
from tastemaker.workflows.shard_worker import Failed, Work, score_shard
from tastemaker.workflows.shards import Options, score_shards

CHEAP = ["sharpness", "harmony", "compressibility"]
SLOW = """
import os, time
from pathlib import Path


def score(images, prompts):
    Path(os.environ["MARKS"], str(os.getpid())).touch()
    time.sleep(0.02)
    return images.mean((1, 2, 3))
"""


def tar(path: Path, contents: Iterator[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def photographs(count: int) -> Iterator[tuple[str, bytes]]:
    """JPEGs of 512 x 512 with their words."""
    for i, words in enumerate(prompts(count)):
        file = io.BytesIO()
        Image.fromarray(as_array(pictures(1, 512)[0].roll(i, -1))).save(file, "JPEG", quality=92)
        yield f"{i:06d}.jpg", file.getvalue()
        yield f"{i:06d}.txt", words.encode()


def small(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    """PNGs of 16 x 16, all different."""
    for i in range(first, first + count):
        file = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        yield f"{i:06d}.png", file.getvalue()
        yield f"{i:06d}.txt", f"picture {i}".encode()


class Watched:
    """Seconds of the processor inside the networks of several rewards, in the thread that calls them."""

    def __init__(self, rewards: Sequence[ImageReward]):
        self.inside = 0.0
        for reward in rewards:
            reward.network.forward = self.timed(reward.network.forward)  # type: ignore[method-assign]

    def timed(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(*inputs: Tensor) -> Tensor:
            began = time.thread_time()
            out = forward(*inputs)
            self.inside += time.thread_time() - began
            return out

        return watched


def four() -> list[ImageReward]:
    made = [reward_of(384, 12, 384, 6) for _ in range(4)]
    for i, reward in enumerate(made):
        reward.name, reward.view = f"reward{i}", Squash(224) if i % 2 else CLIP_CROP
    return made


def once(rewards: Sequence[ImageReward], path: Path, out: Path) -> tuple[int, float, float]:
    """(pictures, seconds of the processor, seconds of the clock)."""
    work = Work(list_shards(path)[0], out, {r.name: r.name for r in rewards}, Words(), 32)
    cpu, clock = time.process_time(), time.perf_counter()
    outcome = score_shard(rewards, work)
    if isinstance(outcome, Failed):
        raise SystemExit(outcome.reason)
    return outcome.rows, time.process_time() - cpu, time.perf_counter() - clock


def said(options: argparse.Namespace, row: str) -> str:
    return f"python -m benchmarks.score_shards --rows {row}"


def overhead(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    rewards = four()
    watched, rows, rates = Watched(rewards), [], []
    with tempfile.TemporaryDirectory() as folder:
        warm = tar(Path(folder) / "warm.tar", photographs(4))
        path = tar(Path(folder) / "a.tar", photographs(options.images))
        once(rewards, warm, Path(folder) / "warm")
        for i in range(options.repeats):
            watched.inside = 0.0
            count, cpu, clock = once(rewards, path, Path(folder) / str(i))
            rows.append((cpu, watched.inside))
            rates.append(count / clock)
    ours, bare = (statistics.median(column) for column in zip(*rows))
    write(
        name="dataset_scoring_overhead",
        ours=ours,
        other=bare,
        other_is=f"what of it four rewards' forwards took, {options.images} JPEGs of 512 x 512, batch 32, width 384, "
        "depth 12",
        ratio=statistics.median(whole / inside for whole, inside in rows),
        target="<= 1.05",
        unit="CPU s",
        command=said(options, "dataset_scoring_overhead"),
    )
    print(f"{statistics.median(rates):.2f} pictures a second with four rewards on one thread")


def memory(options: argparse.Namespace) -> None:
    few, many = (peak(count) for count in (options.few, options.many))
    write(
        name="dataset_scoring_memory_ratio",
        ours=many / 1024,
        other=few / 1024,
        other_is=f"the peak with {options.few:,} pictures in the shard; ours with {options.many:,}",
        ratio=many / few,
        target="<= 1.10",
        unit="MiB",
        command=said(options, "dataset_scoring_memory_ratio"),
    )


def peak(count: int) -> int:
    """KiB of resident memory at most, of a process that scores a shard of so many pictures."""
    with tempfile.TemporaryDirectory() as folder:
        path = tar(Path(folder) / "a.tar", small(0, count))
        measure = (
            "import resource, sys; from pathlib import Path; from tastemaker.workflows.shards import *; "
            "score_shards(sys.argv[3].split(','), Path(sys.argv[1]), Path(sys.argv[2]), Options()); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", measure, str(path), str(Path(folder) / "out"), ",".join(CHEAP)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def data_set(folder: Path, shards: int, each: int) -> Path:
    path = folder / "in"
    path.mkdir()
    for k in range(shards):
        tar(path / f"{k:04d}.tar", small(k * each, each))
    return path


def prepared(folder: Path) -> str:
    """A slow reward that leaves a mark with its process's number."""
    (folder / "marks").mkdir()
    (folder / "slow.py").write_text(SLOW)
    os.environ["MARKS"] = str(folder / "marks")
    return str(folder / "slow.py")


def killed(options: argparse.Namespace) -> None:
    draws, kills = random.Random(0), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reward, path, out = prepared(folder), data_set(folder, options.shards, 16), folder / "out"
        command = [sys.executable, "-m", "tastemaker", "score", reward, str(path), "--out", str(out), "--batch", "4"]
        while True:
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if kills < options.kills:
                wait_for_work(folder / "marks", child)
                time.sleep(draws.uniform(0, 0.3))
                kills += child.poll() is None
                child.kill()
            if child.wait() == 0:
                break
        report("scoring_kills", wrong(out, options.shards * 16), f"{kills} kills of the command", options)


def wait_for_work(marks: Path, child: subprocess.Popen) -> None:
    while child.poll() is None and not (marks / str(child.pid)).exists():
        time.sleep(0.005)


def ray_killed(options: argparse.Namespace) -> None:
    import ray

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reward, path, out = prepared(folder), data_set(folder, options.shards, 16), folder / "out"
        done, killed = threading.Event(), set[str]()
        killer = threading.Thread(target=kill_actors, args=(folder / "marks", options.ray_kills, done, killed))
        killer.start()
        try:
            score_shards([reward], path, out, Options(ray="local", workers=2, batch=4), Console(quiet=True))
        finally:
            done.set()
            killer.join()
            ray.shutdown()
        report("ray_kills", wrong(out, options.shards * 16), f"{len(killed)} Ray actors killed", options)


def kill_actors(marks: Path, count: int, done: threading.Event, killed: set[str]) -> None:
    draws = random.Random(0)
    while not done.is_set() and len(killed) < count:
        for mark in sorted(p.name for p in marks.iterdir()):
            if mark not in killed and len(killed) < count:
                time.sleep(draws.uniform(0, 0.3))
                killed.add(mark)
                os.kill(int(mark), signal.SIGKILL)
        time.sleep(0.005)


def wrong(out: Path, count: int) -> int:
    """Pictures without a score, or with more than one; and commits of a shard past the first."""
    found = Counter(key for shard in read_scored(out, ["slow"]) for key in shard.keys)
    commits = len((out / NAME).read_text().splitlines()) - len(read_ledger(out))
    return count - len(found) + sum(n - 1 for n in found.values()) + commits


def report(name: str, count: int, kills: str, options: argparse.Namespace) -> None:
    write(
        name=name,
        ours=float(count),
        other=0.0,
        other_is=f"every one of {options.shards * 16:,} pictures scored once, after {kills}",
        ratio=float(count),
        target="= 0",
        unit="pictures",
        command=said(options, name),
    )


ROWS = {
    "dataset_scoring_overhead": overhead,
    "dataset_scoring_memory_ratio": memory,
    "scoring_kills": killed,
    "ray_kills": ray_killed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    defaults = {"images": 96, "repeats": 3, "few": 1000, "many": 100_000, "shards": 120, "kills": 50, "ray-kills": 20}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    for name in options.rows:
        ROWS[name](options)


if __name__ == "__main__":
    main()
