"""An endpoint of our own on this machine, which answers what a test tells it to."""

import base64
import io
import json
import math
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def listed(**shares):
    return {token.replace("_", " "): math.log(p) for token, p in shares.items()}


class Judge(BaseHTTPRequestHandler):
    """Answers as `server.script` says: a function (request, times this request was seen) -> (status, body)."""

    def do_GET(self):
        self.answer(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = json.dumps(asked["messages"])
        with self.server.lock:
            self.server.seen[key] = self.server.seen.get(key, 0) + 1
            self.server.asked.append((asked, dict(self.headers)))
            self.server.busy += 1
            self.server.most = max(self.server.most, self.server.busy)
        status, body = self.server.script(asked, self.server.seen[key])
        with self.server.lock:
            self.server.busy -= 1
        self.answer(status, body)

    def answer(self, status, body):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    made.lock, made.seen, made.asked, made.busy, made.most = threading.Lock(), {}, [], 0, 0
    made.models, made.url = ["judge"], f"http://127.0.0.1:{made.server_port}/v1"
    made.script = lambda asked, times: (200, reply(listed(Yes=0.5, yes=0.25, No=0.125)))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


def reply(tokens):
    top = [{"token": t, "logprob": v} for t, v in tokens.items()]
    return {"choices": [{"logprobs": {"content": [{**top[0], "top_logprobs": top}]}}]}


def brightness(asked):
    """The mean of the picture that arrived, 0 to 1."""
    url = asked["messages"][0]["content"][0]["image_url"]["url"]
    picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    return float(np.asarray(picture).mean() / 255)
