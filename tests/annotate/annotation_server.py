"""What the tests of the annotation app share: pictures, a filled database, a browserless client, a server process."""

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from server_process import ServerProcess, free_port
from starlette.testclient import TestClient

from tastemaker.annotate import people, store
from tastemaker.annotate.presets import preset_settings
from tastemaker.annotate.projects import create_project
from tastemaker.annotate.store import NewItem

PASSWORD = "a long password"


def picture(seed, size=(24, 16), note="secret-model"):
    """A PNG of noise with its maker's name in it."""
    out, about = io.BytesIO(), PngImagePlugin.PngInfo()
    about.add_text("parameters", note)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG", pnginfo=about)
    return out.getvalue()


def items(count, pictures=2, **more):
    models = [{"model": f"model-{j}", "file": f"/home/me/{j}.png"} for j in range(pictures)]
    return [
        NewItem(f"prompt {k}", [picture(100 * k + j) for j in range(pictures)], f"id-{k}", models, **more)
        for k in range(count)
    ]


def filled(where, count=6, pictures=2, preset="pairs", folder=None, tests=(), **settings):
    """(database, project id) with an admin, a reviewer and annotators ann, bob and eve."""
    database = store.open_store(where, folder)
    with database.session() as session:
        for login, role in (
            ("admin", "admin"),
            ("rev", "reviewer"),
            *((n, "annotator") for n in ("ann", "bob", "eve")),
        ):
            people.create_person(session, login, PASSWORD, role)
        project = create_project(session, "Test", preset_settings(preset, **{"repeat_rate": 0.0, **settings}))
        store.add_items(session, project, [*items(count, pictures), *tests])
    return database, project


class Client(TestClient):
    """A browser without a window: logs in, keeps the form's token, sends JSON."""

    def log_in(self, login, password=PASSWORD):
        self.get("/login")
        reply = self.post(
            "/login",
            data={"login": login, "password": password, "form_token": self.form_token("/login")},
            follow_redirects=False,
        )
        if reply.status_code == 303:
            self.token = self.form_token("/password")
        return reply

    def form_token(self, path):
        return re.search(r'name="form_token" value="(\w+)"', self.get(path).text)[1]

    def tell(self, path, body=None, token=None):
        return self.post(path, json=body or {}, headers={"x-form-token": self.token if token is None else token})

    def form(self, path, **fields):
        return self.post(path, data={"form_token": self.token, **fields}, follow_redirects=False)

    def hold(self, project):
        return self.tell(f"/api/projects/{project}/hold").json()

    def answer(self, task, answer, token=None, **more):
        body = {"answer": answer, "client_token": token or os.urandom(8).hex(), "ms": 1200, "client": "test", **more}
        return self.tell(f"/api/tasks/{task['token']}/answer", body)


def log_in(page, url, login):
    """In a real browser (chromium.Browser), by keyboard: the name field has the focus when the page opens."""
    page.open(f"{url}/login")
    page.until("document.activeElement.name === 'login'")
    page.type(login)
    page.press("Tab")
    page.type(PASSWORD)
    page.press("Enter")
    page.until("!location.pathname.startsWith('/login')")


class Server(ServerProcess):
    """`tastemaker annotate serve` of a database."""

    def __init__(self, database, *options):
        super().__init__("annotate", "serve", "--database", database, "--admin-password", PASSWORD, *options)


@contextlib.contextmanager
def postgresql():
    """The URL of a PostgreSQL server of our own, or None where there is none to start. It does not run as root."""
    tools = {name: _tool(name) for name in ("initdb", "postgres")}
    if not all(tools.values()):
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    runuser = shutil.which("runuser") or "/usr/sbin/runuser"  # not on every PATH
    other = [runuser, "-u", "nobody", "--"] if os.geteuid() == 0 else []
    if other:
        shutil.chown(folder, "nobody")
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(
        [*other, tools["initdb"], "-D", folder / "data", "-U", "test", "-A", "trust", "-N"], check=True, **quiet
    )
    words = ["-D", folder / "data", "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen([*other, tools["postgres"], *words], **quiet)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        _stop(server, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _tool(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def _stop(server, folder):
    """By its own pid file: `server` may be runuser, which does not pass every signal on."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(15)
    if server.poll() is None:
        server.kill()
        server.wait()
