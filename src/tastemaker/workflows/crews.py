"""Who scores the shards: this process, processes on this machine, or actors on a Ray cluster.

Siblings: each takes rewards and the work, and yields an outcome per shard as it comes; its caller writes the ledger.

A member that dies, killed or for want of memory, is replaced, and its shard is given out again; a shard that took
`DEATHS` members with it is left and named.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..errors import MissingExtra, TastemakerError
from ..protocols import Reward
from .shard_worker import Failed, Outcome, Work, load_on, score_shard

Crew = Generator[Outcome, None, None]  # closed, it ends its members
DEATHS = 5  # of members over one shard
OBJECTS = 100 * 2**20  # bytes of Ray's shared memory where it is started here; only outcomes pass through it


class Board:
    """What is to be done, and how often each shard has ended its member."""

    def __init__(self, work: Sequence[Work]):
        self.waiting, self.deaths = deque(work), Counter[str]()

    def returned(self, work: Work) -> Failed | None:
        """Put it back after a death; a Failed instead where that was one too many."""
        name = work.shard.name
        self.deaths[name] += 1
        if self.deaths[name] < DEATHS:
            self.waiting.appendleft(work)
            return None
        return Failed(name, f"{name} ended {DEATHS} workers, killed or out of memory; try a smaller --batch")


def alone(rewards: Sequence[Reward], work: Sequence[Work]) -> Crew:
    """In this process, with rewards that are loaded."""
    for one in work:
        yield score_shard(rewards, one)


@dataclass
class _Member:
    """A process, None once it is gone; our end of its pipe; and what it is at."""

    process: Any
    pipe: Connection
    work: Work | None = None


def processes(names: Sequence[str], work: Sequence[Work], workers: int) -> Crew:
    """In so many new processes, each with its rewards and its share of the processors; on a machine with GPUs they
    take them in turn."""
    board, count = Board(work), min(workers, len(work))
    members = [_hire(names, place, count) for place in range(count)]
    try:
        while board.waiting or any(m.work for m in members):
            for member in members:
                if member.work is None and board.waiting:
                    _give(member, board.waiting.popleft())
            ready = wait([m.pipe for m in members if m.work])
            for place, member in enumerate(members):
                if member.pipe not in ready:
                    continue
                outcome = _received(member, board)
                if member.process is None:
                    members[place] = _hire(names, place, count)
                if outcome is not None:
                    yield outcome
    finally:
        for member in members:
            _dismiss(member)


def _hire(names: Sequence[str], place: int, count: int) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, list(names), place, count), daemon=True)
    process.start()
    theirs.close()  # else the pipe would outlive its process, and its death would go unseen
    return _Member(process, ours)


def _give(member: _Member, work: Work) -> None:
    member.work = work
    with suppress(OSError):  # it died idle: its pipe is at the end, which `wait` reports next
        member.pipe.send(work)


def _received(member: _Member, board: Board) -> Outcome | None:
    """What came, or None where the member died and its work was put back."""
    work, member.work = member.work, None
    assert work is not None
    try:
        return member.pipe.recv()
    except (EOFError, OSError):
        _dismiss(member)
        return board.returned(work)


def _dismiss(member: _Member) -> None:
    member.pipe.close()
    if member.process is not None:
        member.process.kill()
        member.process.join()
    member.process = None


def _serve(pipe: Connection, names: list[str], place: int, count: int) -> None:
    """A member's life: ends when its pipe does, so also when the driver is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver decides what it means
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    score = scorer(names, place)
    while True:
        try:
            pipe.send(score(pipe.recv()))
        except (EOFError, OSError):
            return


def scorer(names: Sequence[str], place: int) -> Callable[[Work], Outcome]:
    """Rewards loaded once, on the GPU of this place in turn, or a Failed for every shard where they cannot be."""
    gpus = torch.cuda.device_count()
    try:
        rewards = load_on(names, f"cuda:{place % gpus}" if gpus else "cpu")
    except TastemakerError as error:
        reason = str(error)
        return lambda work: Failed(work.shard.name, reason, stop=True)
    return lambda work: score_shard(rewards, work)


class RayMember:
    """An actor: rewards in one process of the cluster. Paths are those of the driver, on a file system they share."""

    def __init__(self, names: list[str], folder: str):
        if os.path.isdir(folder):
            os.chdir(folder)  # rewards and weights are named from where the command was called
        self.scorer = scorer(names, 0)  # Ray shows each actor its own GPU alone

    def score(self, work: Work) -> Outcome:
        return self.scorer(work)


def on_ray(names: Sequence[str], work: Sequence[Work], workers: int, address: str) -> Crew:
    """On a Ray cluster at `address` ("auto" finds it, "local" starts one here), by so many actors; 0: one per GPU of
    the cluster, else one per processor. Raises MissingExtra without Ray, TastemakerError where no cluster answers."""
    ray = _joined(address, workers)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = min(workers or gpus or int(ray.cluster_resources().get("CPU", 1)), len(work))
    actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0)(RayMember)

    def hire() -> Any:
        return actor.remote(list(names), os.getcwd())

    board, idle = Board(work), [hire() for _ in range(count)]
    busy: dict[Any, tuple[Any, Work]] = {}
    try:
        while board.waiting or busy:
            while idle and board.waiting:
                member, one = idle.pop(), board.waiting.popleft()
                busy[member.score.remote(one)] = (member, one)
            done, _ = ray.wait(list(busy), num_returns=1)
            member, one = busy.pop(done[0])
            try:
                outcome: Outcome | None = ray.get(done[0])
            except ray.exceptions.RayActorError:
                outcome, member = board.returned(one), hire()
            idle.append(member)
            if outcome is not None:
                yield outcome
    finally:
        for member in [*idle, *(m for m, _ in busy.values())]:
            ray.kill(member)


def _joined(address: str, workers: int) -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "scale") from None
    if ray.is_initialized():
        return ray
    here: dict[str, Any] = {"num_cpus": workers or None, "object_store_memory": OBJECTS, "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, **(here if address == "local" else {}))
    except ConnectionError as error:
        raise TastemakerError(
            f"no Ray cluster answers at '{address}': {error}; --ray local starts one here"
        ) from error
    return ray
