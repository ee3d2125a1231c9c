"""A command of tastemaker that serves pages, in a process of its own, for tests that a browser or a kill needs."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class ServerProcess:
    """`tastemaker WORDS --port PORT`, which can be killed and started again on the same port."""

    def __init__(self, *words, seconds=60):
        self.port, self.seconds = free_port(), seconds
        self.words = [sys.executable, "-m", "tastemaker", *map(str, words), "--port", str(self.port)]
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=1).read()
                return
            if self.process.poll() is not None:
                raise RuntimeError(self.process.stderr.read().decode())
            time.sleep(0.05)
        raise RuntimeError("the server does not answer")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()
