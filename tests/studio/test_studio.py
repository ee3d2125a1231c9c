"""The studio over HTTP: pictures as the command line draws them, their scores, sweeps, what is overtaken, errors."""

import asyncio
import io
import json
import re
import shlex
import threading

import numpy as np
import pytest
import told_model
import torch
from PIL import Image
from starlette.testclient import TestClient

from tastemaker.cli.main import main
from tastemaker.data.images import load_image
from tastemaker.errors import TastemakerError
from tastemaker.page_server import HEADERS
from tastemaker.rewards.table import load_rewards
from tastemaker.sampling import score
from tastemaker.studio.app import PICTURES, STATIC, Remembered, create_app
from tastemaker.studio.asked import Drawn, Look, Setting, Superseded, Sweep, command, read
from tastemaker.studio.worker import Worker
from tastemaker.workflows.studio import Studio

PROMPT = "a photo of a red apple"
LEVELS = {"sharpness": 0.8, "harmony": 0.2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(told_model.write(tmp_path_factory.mktemp("studio") / "run"))


@pytest.fixture(scope="module")
def client(model):
    with TestClient(create_app(Studio(model))) as client:
        yield client


def draw(client, **more):
    setting = {"prompt": PROMPT, "levels": LEVELS, "pictures": 2, **more}
    return client.post("/api/draw", json={"page": "p", "setting": setting})


def pixels(client, picture):
    return np.asarray(Image.open(io.BytesIO(client.get(picture["url"]).content)))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"levels": {"harmony": 1.0}, "w": 3.25, "seed": 5},
        {"caption": "emptied", "pictures": 1},
        {"caption": "kept", "pictures": 1},
        {"levels": {}, "w": 0.5},
        {"levels": {}, "caption": "emptied"},
    ],
    ids=["both", "one", "emptied", "kept", "nothing", "nothing-emptied"],
)
def test_the_command_line_draws_the_same_pictures(client, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = draw(client, **asked).json()
    assert main(shlex.split(said["command"])[1:]) == 0
    files = sorted((tmp_path / "samples").glob("0*.png"))
    assert len(files) == len(said["pictures"])
    for path, picture in zip(files, said["pictures"]):
        assert np.array_equal(np.asarray(Image.open(path)), pixels(client, picture))


def test_what_is_asked_and_every_seed_changes_the_pictures(client):
    urls = lambda **more: [p["url"] for p in draw(client, **more).json()["pictures"]]  # noqa: E731
    first = urls()
    different = [
        urls(seed=7),
        urls(w=0.0),
        urls(levels={}),
        urls(levels={"harmony": 0.2}),
        urls(caption="emptied"),
        urls(caption="kept"),
    ]
    everything = [url for found in [first, *different] for url in found]
    assert len(set(everything)) == len(everything) and urls() == first


def test_scores_are_those_of_the_pictures_and_their_levels_those_of_the_bins(client, model, tmp_path):
    said, engine = draw(client).json(), Studio(model)
    for picture in said["pictures"]:
        path = tmp_path / "picture.png"
        path.write_bytes(client.get(picture["url"]).content)
        (row,) = score(load_rewards("sharpness,harmony"), load_image(path)[None], [PROMPT])
        assert list(picture["scores"].values()) == pytest.approx(row.tolist(), abs=0.05)  # 8 bits a channel
        for name, value in picture["scores"].items():
            level = engine.bins[name].level_of(torch.tensor(value))
            assert picture["reached"][name] == pytest.approx(float(level))
    assert said["notes"] == [] and said["seconds"] > 0


def test_a_sweep_goes_from_one_reward_to_the_other_with_one_seed(client):
    setting = {"prompt": PROMPT, "levels": {"sharpness": 0.4}, "seed": 3}
    body = {"page": "p", "setting": setting, "sweep": {"first": "sharpness", "second": "harmony", "count": 3}}
    said = client.post("/api/sweep", json=body).json()["pictures"]
    assert [p["levels"] for p in said] == [{"sharpness": 1 - k / 2, "harmony": k / 2} for k in range(3)]
    assert {p["seed"] for p in said} == {3} and len({p["url"] for p in said}) == 3
    for picture in (said[0], said[-1]):
        (alone,) = draw(client, levels=picture["levels"], seed=3, pictures=1).json()["pictures"]
        near = np.abs(pixels(client, alone).astype(int) - pixels(client, picture)).max()
        assert near <= 1, "what the page shows when the picture's levels are taken"


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"prompt": "a photo of a red aple"}, "unknown prompt word 'aple'; nearest known: apple"),
        ({"prompt": "  "}, "prompt: string should have at least 1 character"),
        ({"levels": {"sharp": 1.0}}, "unknown reward 'sharp'; nearest known: sharpness"),
        ({"levels": {"harmony": 1.5}}, "levels.harmony: input should be less than or equal to 1, got 1.5"),
        ({"pictures": 17}, "pictures: input should be less than or equal to 16"),
        ({"seed": None}, "seed: input should be a valid integer, got None"),
        ({"w": -1}, "w: input should be greater than or equal to 0"),
        ({"caption": "gone"}, "caption: "),
        ({"colour": "red"}, "colour: extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_is_named(client, asked, words):
    reply = draw(client, **asked)
    assert reply.status_code == 422 and words in reply.json()["error"]


def test_other_wrong_requests(client):
    def error(path, **body):
        reply = client.post(path, json=body)
        return reply.status_code, reply.json()["error"]

    setting = {"prompt": PROMPT}
    assert client.post("/api/draw", content=b"{").json() == {"error": "expected JSON"}
    assert error("/api/draw", setting=setting) == (422, "expected `page`, a name of 1 to 64 characters")
    assert error("/api/draw", page="p")[1].startswith("setting: ")
    twice = {"first": "harmony", "second": "harmony"}
    assert "got 'harmony' twice" in error("/api/sweep", page="p", setting=setting, sweep=twice)[1]
    reply = client.get("/pictures/0000.png")
    assert reply.status_code == 404 and "draw it again" in reply.json()["error"]
    assert client.post("/api/draw", content=b" " * (300 * 1024)).status_code == 413


def test_the_page_says_what_the_model_is_and_asks_nobody_else(client, model):
    said = client.get("/api/model").json()
    own = Studio(model).generator.positive.tolist()
    assert said["rewards"] == list(told_model.NAMES) and said["bins"] == 6 and said["model"] == model
    assert list(said["first"]["levels"].values()) == pytest.approx(own, abs=1e-4) and said["first"]["w"] == 2.0
    page = client.get("/")
    assert {k: v for k, v in page.headers.items() if k in HEADERS} == HEADERS
    assert client.get("/health").text == "well"
    for path in STATIC.iterdir():
        assert client.get(f"/static/{path.name}").status_code == 200
        assert not re.search(r"https?://|//\w+\.\w+/", path.read_text())
    for link in re.findall(r'(?:href|src)="(/[^"]+)"', page.text):
        assert client.get(link).status_code == 200, link


def test_what_cannot_be_measured_is_said(tmp_path):
    setting = Setting(prompt=PROMPT, levels={"mine": 1.0}, pictures=1)
    other = Studio(str(told_model.write(tmp_path / "a", names=("sharpness", "mine"))))
    look = other.draw(setting, lambda: False)
    assert list(look.pictures[0].scores) == ["sharpness"] and "mine is not measured" in look.notes[0]
    older = Studio(str(told_model.write(tmp_path / "b", version="0")))
    look = older.draw(Setting(prompt=PROMPT, pictures=1), lambda: False)
    assert list(look.pictures[0].scores) == list(told_model.NAMES) and look.pictures[0].reached == {}
    assert len(look.notes) == 2 and "another version" in look.notes[0]
    (tmp_path / "bad.py").write_text("def score(images, prompts):\n    raise RuntimeError('no')\n")
    chosen = Studio(str(tmp_path / "a"), f"harmony,{tmp_path}/bad.py:score")
    look = chosen.draw(setting, lambda: False)
    assert list(look.pictures[0].scores) == ["harmony"] and "no" in look.notes[-1]


def test_a_model_without_rewards_is_refused_with_what_to_do(tmp_path, capsys):
    from small import tiny_flow

    tiny_flow().save(tmp_path)
    assert main(["studio", str(tmp_path)]) == 2
    assert "is told no rewards" in (said := capsys.readouterr().err) and "tastemaker train miro" in said


def test_nothing_asked_on_the_command_line_takes_no_negative(model, tmp_path, capsys):
    words = ["sample", model, "--seed", "0", "--targets", "none", "--out", str(tmp_path / "out")]
    assert main([*words, "--negative", "harmony=0"]) == 2 and main([*words, "--feasible"]) == 2
    assert capsys.readouterr().err.count("expected neither a negative nor feasible") == 2


# what draws, and what is overtaken


class Slow:
    """Draws only when it is let, or stops when nobody waits."""

    name = "slow"

    def __init__(self):
        self.began, self.let, self.seen = threading.Event(), threading.Event(), []

    def about(self):
        return {}

    def draw(self, setting, stopped):
        self.began.set()
        while not self.let.wait(0.005):
            if stopped():
                raise Superseded
        self.seen.append(setting.prompt)
        return Look((Drawn(b"png", 0, {}, {}, {}),), 0.1)


async def never():
    return False


def test_a_newer_request_of_a_page_ends_its_older_one_and_no_other():
    async def story():
        worker, engine = Worker(), Slow()

        def ask(page, prompt):
            setting = Setting(prompt=prompt)
            return asyncio.create_task(worker.run(page, lambda stopped: engine.draw(setting, stopped), never))

        first, other = ask("a", "first"), ask("b", "other")
        await asyncio.to_thread(engine.began.wait, 10)
        waiting = ask("a", "second")  # ends the first, waits behind the other page's, and is itself overtaken
        last = ask("a", "third")
        await asyncio.wait({first}, timeout=10)
        engine.let.set()
        done = await asyncio.gather(first, other, waiting, last, return_exceptions=True)
        worker.stop()
        return engine.seen, [isinstance(d, Superseded) for d in done]

    seen, ended = asyncio.run(story())
    assert seen == ["other", "third"] and ended == [True, False, True, False]


def test_a_page_that_has_gone_is_drawn_for_no_longer():
    async def story():
        worker, engine, gone = Worker(), Slow(), threading.Event()

        async def left():
            return gone.is_set()

        doing = asyncio.create_task(worker.run("a", lambda stopped: engine.draw(Setting(prompt="x"), stopped), left))
        await asyncio.to_thread(engine.began.wait, 10)
        gone.set()
        with pytest.raises(Superseded):
            await doing
        worker.stop()

    asyncio.run(story())


def test_the_same_is_drawn_once():
    engine = Slow()
    engine.let.set()
    with TestClient(create_app(engine)) as client:
        body = {"page": "p", "setting": {"prompt": "x"}}
        assert client.post("/api/draw", json=body).json() == client.post("/api/draw", json=body).json()
    assert engine.seen == ["x"]


def test_pictures_stop_at_the_step_where_nobody_waits(model):
    engine, steps = Studio(model), []
    advance = engine.generator.advance
    engine.generator.advance = lambda state: steps.append(1) or advance(state)
    with pytest.raises(Superseded):
        engine.draw(Setting(prompt=PROMPT), lambda: len(steps) == 3)
    assert len(steps) == 3


def test_the_oldest_is_forgotten_first():
    kept = Remembered[int](2)
    for k, key in enumerate("abc"):
        kept.put(key, k)
        kept.get("a")
    assert [kept.get(key) for key in "abc"] == [0, None, 2] and PICTURES >= 64 * 16


# plain values


def test_the_command_names_what_differs():
    words = shlex.split(command("runs/my miro", Setting(prompt="it's red", seed=3, pictures=1, levels=LEVELS, w=1.5)))
    assert words[:5] == ["tastemaker", "sample", "runs/my miro", "--prompt", "it's red"]
    assert words[5:9] == ["--seed", "3", "--targets", "sharpness=0.8,harmony=0.2"]
    assert words[9:] == ["--guidance", "2.5", "--out", "samples"]


def test_a_sweep_has_its_ends_and_is_json():
    levels = read(Sweep, {"first": "a", "second": "b", "count": 4}).levels()
    assert levels[0] == {"a": 1.0, "b": 0.0} and levels[-1] == {"a": 0.0, "b": 1.0}
    assert all(one["a"] + one["b"] == pytest.approx(1) for one in json.loads(json.dumps(levels)))
    with pytest.raises(TastemakerError, match="count: "):
        read(Sweep, {"first": "a", "second": "b", "count": 1})
