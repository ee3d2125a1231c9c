"""Two hundred annotators at once: how long an answer takes to be kept, and what is left when the server is killed.

    python -m benchmarks.annotate [--annotators 200] [--seconds 60] [--kills 50]

The server runs in a process of its own on SQLite, this process plays the annotators: each has one connection, sends
one answer a second and waits for its acknowledgement, which brings the next task. Rows written:

annotate_p95_ms  the 95th percentile of the time from sending an answer to its acknowledgement, which is after the
                 commit is on the disk; beside it that of a request that does nothing, under the same load
annotate_kills   acknowledged answers that are lost, answers that are doubled and faults of the log, after the server
                 was killed with SIGKILL at random moments under that load; what was not acknowledged is sent again
                 under its token, as the page does

Exit code 1 where an answer is lost or doubled, or the 95th percentile is above 150 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import select

from tastemaker.annotate import people, store
from tastemaker.annotate.audit import audit
from tastemaker.annotate.database import Annotator, Event
from tastemaker.annotate.presets import preset_settings
from tastemaker.annotate.projects import create_project
from tastemaker.annotate.store import NewItem

PASSWORD = "password of all"
CHOICES = ("a", "b", "tie", "both_bad")
LENGTH, COOKIE = re.compile(rb"content-length: (\d+)"), re.compile(rb"set-cookie: ([^=]+)=([^;]*)")


def fill(path: Path, annotators: int, items: int) -> int:
    """A database with so many accounts and pairs; the project's id."""
    database = store.open_store(path)
    with database.session() as session:
        people.create_person(session, "person-0", PASSWORD)
        row = people.find(session, "person-0")
        others = [
            {"login": f"person-{k}", "pseudonym": f"p-{k}", "password": row.password, "role": "annotator", "epoch": 0,
             "created_at": row.created_at} for k in range(1, annotators)
        ]  # fmt: skip
        if others:
            session.execute(Annotator.__table__.insert(), others)
        project = create_project(session, "Load", preset_settings("pairs", overlap=4, gold_rate=0.02))
        pictures = [_picture(k) for k in range(2)]
        gold = {"choice": "a"}
        made = [NewItem(f"prompt {k}", pictures, gold=gold if k % 50 == 0 else None) for k in range(items)]
        store.add_items(session, project, made)
    database.close()
    return project


def _picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


class Server:
    """The server as its users start it."""

    def __init__(self, path: Path):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.path, self.process = path, None
        self.start()

    def start(self) -> None:
        words = ["annotate", "serve", "--database", str(self.path), "--port", str(self.port), "--no-demo"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([sys.executable, "-m", "tastemaker", *words], **quiet)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Connection:
    """One HTTP/1.1 connection, kept open. Small, so that this process does not weigh on the figures."""

    def __init__(self, port: int):
        self.port, self.cookies, self.stream, self.cookie = port, {}, None, ""

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """(status, body). Raises OSError or EOFError where the server is gone."""
        if self.stream is None:
            self.stream = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.stream
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{self.cookie}{more}\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(answer)
            content = await reader.readexactly(int(length[1]) if length else 0)
        except (OSError, EOFError):
            self.close()
            raise
        for name, value in COOKIE.findall(answer) if b"set-cookie" in answer else ():
            self.cookies[name] = value
            self.cookie = (
                "cookie: " + "; ".join(f"{k.decode()}={v.decode()}" for k, v in self.cookies.items()) + "\r\n"
            )
        return int(answer[9:12]), content

    def close(self) -> None:
        if self.stream is not None:
            self.stream[1].close()
        self.stream = None


@dataclass
class Kept:
    """What the server has said. answers: token of the sending -> number in the log."""

    answers: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)  # of requests that do nothing
    refused: list[str] = field(default_factory=list)
    again: int = 0  # sendings that had been kept already
    cpu: float = float("nan")  # seconds of the server's process while it was played
    own: float = float("nan")  # of the players'


class Player:
    """One annotator: logs in, answers once a second, sends again what was not acknowledged."""

    def __init__(self, number: int, port: int, project: int, kept: Kept):
        self.number, self.project, self.kept = number, project, kept
        self.line, self.form, self.tasks = Connection(port), "", []
        self.rng = random.Random(number)

    async def log_in(self) -> None:
        _, page = await self.line.ask("GET", "/login")
        fields = {"login": f"person-{self.number}", "password": PASSWORD, "form_token": _form_token(page)}
        body = urllib.parse.urlencode(fields).encode()
        status, _ = await self.line.ask("POST", "/login", body, content_type="application/x-www-form-urlencoded")
        if status != 303:
            raise SystemExit(f"person-{self.number} cannot log in: {status}")
        self.form = _form_token((await self.line.ask("GET", "/password"))[1])

    async def send(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """As the page does: again and again until the server has answered."""
        content = json.dumps(body).encode()
        while True:
            with contextlib.suppress(OSError, EOFError):
                status, said = await self.line.ask(
                    "POST", path, content, content_type="application/json", x_form_token=self.form
                )
                if status < 500:
                    return status, json.loads(said)
            self.line.close()
            await asyncio.sleep(0.05 + self.rng.random() * 0.1)

    async def play(self, until: float, gap: float = 1.0) -> None:
        due = time.perf_counter() + self.rng.random() * gap
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if not self.tasks:
                self.tasks = (await self.send(f"/api/projects/{self.project}/hold", {}))[1]["tasks"]
                if not self.tasks:
                    return
            await self.answer()
            due = max(due + gap, time.perf_counter())

    async def answer(self) -> None:
        task, token = self.tasks.pop(0), f"{self.number}-{self.rng.getrandbits(64):x}"
        body = {"answer": {"choice": self.rng.choice(CHOICES)}, "client_token": token, "ms": 1000, "client": "load"}
        began = time.perf_counter()
        status, said = await self.send(f"/api/tasks/{task['token']}/answer", body)
        self.kept.seconds.append(time.perf_counter() - began)
        if status != 200:
            self.kept.refused.append(said.get("error", str(status)))
            return
        self.kept.answers[token] = said["event"]
        self.kept.again += bool(said.get("again"))
        self.tasks += [said["next"]] if said.get("next") else []


def _form_token(page: bytes) -> str:
    return re.search(rb'name="form_token" value="(\w+)"', page)[1].decode()


async def watch_idle(port: int, until: float, kept: Kept) -> None:
    """A request that does nothing, twenty times a second."""
    line = Connection(port)
    while time.perf_counter() < until:
        began = time.perf_counter()
        with contextlib.suppress(OSError, EOFError):
            await line.ask("GET", "/health")
            kept.idle.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)


async def kill_at_random(server: Server, kills: int, rng: random.Random) -> None:
    """SIGKILL between a moment and a second after the server answers again; then start it anew."""
    for _ in range(kills):
        await ready(server.port)
        await asyncio.sleep(rng.uniform(0.05, 1.5))
        server.kill()
        server.start()
    await ready(server.port)


async def ready(port: int) -> None:
    line = Connection(port)
    while True:
        with contextlib.suppress(OSError, EOFError):
            if (await line.ask("GET", "/health"))[0] == 200:
                line.close()
                return
        await asyncio.sleep(0.05)


def on_a_loop(played: Coroutine[Any, Any, Kept]) -> Kept:
    """On a fast one where there is one: the players share the machine with the server, browsers would not."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(played)
    return uvloop.run(played)


async def run(
    server: Server, project: int, annotators: int, seconds: float, kills: int = 0, gap: float = 1.0, seed: int = 0
) -> Kept:
    """Play so many annotators for so long, or until the server was killed so often."""
    await ready(server.port)
    kept = Kept()
    players = [Player(k, server.port, project, kept) for k in range(annotators)]
    for start in range(0, annotators, 20):
        await asyncio.gather(*(p.log_in() for p in players[start : start + 20]))
    until = time.perf_counter() + (1e9 if kills else seconds)
    playing = [asyncio.create_task(p.play(until, gap)) for p in players]
    if kills:
        await kill_at_random(server, kills, random.Random(seed))
        await asyncio.sleep(1.0)
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
    else:
        before, own = cpu_seconds(server.process.pid), time.process_time()
        await asyncio.gather(watch_idle(server.port, until, kept), *playing)
        kept.cpu, kept.own = cpu_seconds(server.process.pid) - before, time.process_time() - own
    for p in players:
        p.line.close()
    return kept


def cpu_seconds(pid: int) -> float:
    """Of a process so far, as Linux tells."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return float("nan")
    user, system = stat.read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def faults(path: Path, kept: Kept) -> list[str]:
    """A sentence for each acknowledged answer that is not in the log, or twice, and for what the audit finds."""
    database = store.open_store(path)
    with database.reading() as session:
        found = audit(session)
        rows = session.execute(select(Event.id, Event.client_token).where(Event.kind == "answer")).all()
    database.close()
    log = {row.client_token: row.id for row in rows}
    found += [f"answer {token} is lost" for token, number in kept.answers.items() if log.get(token) != number]
    if len(log) != len(rows):
        found.append(f"{len(rows) - len(log)} answers are doubled")
    return found


def measure(annotators: int, seconds: float) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "load.db"
        project = fill(path, annotators, items=max(500, int(annotators * seconds / 3)))
        server = Server(path)
        kept = on_a_loop(run(server, project, annotators, seconds))
        server.stop()
        wrong = faults(path, kept) + kept.refused
    middle, p95, p99 = (1000 * float(np.percentile(kept.seconds, p)) for p in (50, 95, 99))
    idle, rate = 1000 * float(np.percentile(kept.idle, 95)), len(kept.answers) / seconds
    cost, own = (1000 * cpu / max(1, len(kept.answers)) for cpu in (kept.cpu, kept.own))
    print(f"{len(kept.answers)} answers, {rate:.0f} a second; {cost:.2f} ms of CPU each, the players' {own:.2f} ms")
    print(f"median {middle:.1f} ms, 95 % {p95:.1f} ms, 99 % {p99:.1f} ms; faults: {wrong[:5]}")
    write_row(
        "annotate_p95_ms", p95, idle, f"a request that does nothing, under the same load of {rate:.0f} answers/s",
        "<= 150 ms", "ms",
    )  # fmt: skip
    return p95 <= 150 and not wrong


def kill(annotators: int, kills: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "load.db"
        project = fill(path, annotators, items=max(500, annotators * kills))
        server = Server(path)
        kept = on_a_loop(run(server, project, annotators, 0.0, kills))
        server.kill()
        wrong = faults(path, kept) + kept.refused
    print(f"{len(kept.answers)} answers, {kept.again} of them sent again after they were kept; faults: {wrong[:5]}")
    other = f"none, after {kills} kills under {len(kept.answers)} acknowledged answers"
    write_row("annotate_kills", float(len(wrong)), 0.0, other, "= 0", "answers lost or doubled")
    return not wrong


def write_row(name: str, ours: float, other: float, other_is: str, target: str, unit: str) -> None:
    from benchmarks.rows import write

    ratio = ours / other if other else ours
    write(name=name, ours=ours, other=other, other_is=other_is, ratio=ratio, target=target, unit=unit,
          command="python -m benchmarks.annotate")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="without kills; 0 leaves it out")
    parser.add_argument("--kills", type=int, default=50, help="0 leaves them out")
    options = parser.parse_args()
    well = measure(options.annotators, options.seconds) if options.seconds else True
    return 0 if (kill(options.annotators, options.kills) if options.kills else True) and well else 1


if __name__ == "__main__":
    sys.exit(main())
