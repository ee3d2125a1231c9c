"""From the annotation app to a better generator, command by command, as docs/annotate.md tells it.

    python -m evidence.app_loop [--cache FOLDER] [--prompts 250] [--pictures 5]

tiny-flow draws; its pictures go into the app; people answer; the export teaches a reward model; ReFL follows it;
blind pairs of both generators go into the app and people decide. The people here are programs: they log in over
HTTP, get the same tasks and pictures as a browser, and judge what they see by the known taste of `world/raters.py`,
with as much noise as makes two of them agree in 65.3 % of cases (ImageReward's annotators, arXiv 2304.05977).
Every other step is a command line, printed as it runs. A finished step is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import http.cookiejar
import io
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tastemaker.randomness import mix
from tastemaker.records import Prompt
from tastemaker.workflows import simulated_votes as votes
from tastemaker.workflows.files import write_json
from tastemaker.world.grammar import evaluation_prompts, prompt_of, spec_of
from tastemaker.world.raters import Taste, vote

from .simulated_pool import build

PASSWORD = "simulated people"
RATERS = ("ann", "bob", "eve")
REWARD = ("frozen_share=1", "validation_share=0.2", "test_share=0.2", "optimiser.learning_rate=1e-3")  # few votes
FOLLOW = ("reward_weight=0.1",)  # a firmer pull than the default: what few votes teach is faint
RESULT = Path(__file__).parent / "results" / "app_loop.json"


def tastemaker(*words: object) -> str:
    """Run a command of the package; what it printed."""
    said = [str(w) for w in words]
    print(f"\n$ tastemaker {shlex.join(said)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "tastemaker", *said], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
    return done.stdout


@contextlib.contextmanager
def served(database: Path) -> Iterator[str]:
    """The app while the block runs; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = ["annotate", "serve", "--database", str(database), "--port", str(port), "--no-demo"]
    print(f"\n$ tastemaker {shlex.join(words)}", flush=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "tastemaker", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=1).read()
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@dataclass
class Person:
    """Somebody with a browser, a taste and an opinion of their own each time."""

    name: str
    address: str
    taste: Taste
    specs: dict[str, Prompt]

    def __post_init__(self) -> None:
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        fields = {"login": self.name, "password": PASSWORD, "form_token": self.form_token("/login")}
        self.browser.open(f"{self.address}/login", urllib.parse.urlencode(fields).encode()).read()
        self.token = self.form_token("/password")

    def form_token(self, path: str) -> str:
        page = self.browser.open(f"{self.address}{path}").read()
        found = re.search(rb'name="form_token" value="(\w+)"', page)
        if found is None:
            raise SystemExit(f"{self.name} sees no form at {path}")
        return found[1].decode()

    def tell(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"content-type": "application/json", "x-form-token": self.token}
        request = urllib.request.Request(f"{self.address}{path}", json.dumps(body).encode(), headers)
        return json.loads(self.browser.open(request).read())

    def see(self, url: str) -> torch.Tensor:
        """(3, H, W) uint8, as the page shows it."""
        picture = Image.open(io.BytesIO(self.browser.open(f"{self.address}{url}").read())).convert("RGB")
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    def choose(self, task: dict[str, Any]) -> str:
        prompt = self.specs[task["prompt"]]
        shown = [self.see(p["url"]) for p in task["pictures"]]
        a, b = votes.utilities(shown, [prompt] * 2, self.taste).double()
        return vote(
            a[None], b[None], self.taste, [mix(len(self.name), *self.name.encode(), *task["token"].encode())]
        )[0]

    def answer_all(self, project: int) -> int:
        """Every task that the app has for this person; how many."""
        self.browser.open(
            f"{self.address}/work/{project}", urllib.parse.urlencode({"form_token": self.token}).encode()
        ).read()  # agrees to take part
        tasks, count = self.tell(f"/api/projects/{project}/hold", {})["tasks"], 0
        while tasks:
            task, count = tasks.pop(0), count + 1
            body = {
                "answer": {"choice": self.choose(task)},
                "client_token": f"{self.name}-{task['token']}",
                "ms": 1000,
            }
            said = self.tell(f"/api/tasks/{task['token']}/answer", body)
            tasks += [said["next"]] if said.get("next") else []
            if count % 100 == 0:
                print(f"{self.name}: {count} answers", flush=True)
        return count


def people_answer(database: Path, project: int, taste: Taste, prompts: Sequence[Prompt]) -> int:
    """All raters, one after the other, until nothing is left."""
    for name in RATERS:
        tastemaker("annotate", "user", name, "--password", PASSWORD, "--database", database)
    specs = {p.text: p for p in prompts}
    with served(database) as address:
        return sum(Person(name, address, taste, specs).answer_all(project) for name in RATERS)


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> Path:
    path.write_text("".join(json.dumps({"prompt": p.text, **(p.spec or {})}) + "\n" for p in prompts))
    return path


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--cache", type=Path, default=Path("runs/app_loop"), help="where pictures and runs are kept")
    words.add_argument("--prompts", type=int, default=250, help="that people see pictures of")
    words.add_argument("--pictures", type=int, default=5, help="of each prompt")
    given = words.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    path = given.cache.joinpath
    taste = build(300, Path("runs/imagereward/pictures")).taste
    asked = [prompt_of(spec_of(mix(77, k))) for k in range(given.prompts)]
    database = path("annotations.db")

    if not path("drawn", "pictures.jsonl").is_file():
        file = write_prompts(path("prompts.jsonl"), asked)
        tastemaker("sample", "--prompts", file, "--seed", f"0..{given.pictures - 1}", "--out", path("drawn"))
    if not path("votes", "events.jsonl").is_file():
        if not database.is_file():
            tastemaker("annotate", "import", path("drawn"), "--project", "First", "--database", database)
        print(f"{people_answer(database, 1, taste, asked)} answers")
        tastemaker("annotate", "stats", "--database", database)
        tastemaker("annotate", "export", "--project", "First", "--out", path("votes"), "--database", database)
    if not path("reward", "result.json").is_file():
        resume = ["--resume", path("reward")] if path("reward").is_dir() else ["--out", path("reward")]
        tastemaker("train", "reward-model", "--data", path("votes"), *REWARD, *resume)
    if not path("tuned", "result.json").is_file():
        resume = ["--resume", path("tuned")] if path("tuned").is_dir() else ["--out", path("tuned")]
        tastemaker("train", "refl", f"reward=preference:{path('reward')}", *FOLLOW, *resume)
    judged = evaluation_prompts(17, seed=4)
    file = write_prompts(path("judged.jsonl"), judged)
    for name, model in (("base", "tiny-flow"), ("after", path("tuned"))):
        if not path(name, "pictures.jsonl").is_file():
            tastemaker("sample", model, "--prompts", file, "--seed", "0..1", "--out", path(name))
    human = ("evaluate", "human", path("base"), path("after"), "--database", database, "--out", path("human"))
    if not path("human", "result.json").is_file():
        tastemaker(*human)
        print(f"{people_answer(database, 2, taste, judged)} answers")
        tastemaker(*human)
    write_json(RESULT, told(given.cache))
    print(f"wrote {RESULT}")


def told(cache: Path) -> dict[str, Any]:
    """What came out: votes, how well the model foretells held-out ones, and how often people took the tuned run."""
    reward, human = (json.loads((cache / name / "result.json").read_text()) for name in ("reward", "human"))
    return {"command": "python -m evidence.app_loop", "reward_model": reward, "people": human["second"]["people"]}


if __name__ == "__main__":
    main()
