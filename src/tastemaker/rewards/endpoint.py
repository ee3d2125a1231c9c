"""Asking a vision-language model behind an OpenAI-compatible endpoint (vLLM, SGLang, ...): one picture, one question,
one token, and its log-probabilities. Plain HTTP from the standard library; no client package is needed.

A key, where the endpoint wants one, is read from the environment variable TASTEMAKER_API_KEY and sent to no other
place than this endpoint.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any

from torch import Tensor

from ..errors import TastemakerError
from ..picture_bytes import as_png

KEY = "TASTEMAKER_API_KEY"
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # states that may pass
OURS = (401, 403, 404, 405)  # states that would meet every picture alike
LONGEST = 30.0  # seconds between two tries
Turns = tuple[tuple[str, str], ...]


class Unanswered(Exception):
    """One picture got no answer; its score is NaN."""


@dataclass(frozen=True)
class Endpoint:
    """url: up to and with `/v1`. model: None where the endpoint serves one only.

    workers: requests at a time. timeout: seconds of one request. tries: of one picture, with pauses that double from
    `pause` seconds on, or as long as the endpoint asks for. top: log-probabilities asked for; OpenAI's limit is 20.
    """

    url: str
    model: str | None = None
    workers: int = 8
    timeout: float = 60.0
    tries: int = 4
    pause: float = 0.5
    top: int = 20

    @classmethod
    def of(cls, where: str, **more: Any) -> Endpoint:
        """`http://host:8000/v1` or `http://host:8000/v1#model`. Raises TastemakerError for another scheme."""
        url, _, model = where.partition("#")
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise TastemakerError(f"expected the URL of an endpoint such as http://host:8000/v1#MODEL, got '{where}'")
        return cls(url.rstrip("/"), model or None, **more)

    def named(self) -> Endpoint:
        """With the model's name, asked for where it is not known. Raises TastemakerError where there is no answer, or
        several models."""
        if self.model is not None:
            return self
        try:
            found = [m["id"] for m in self.ask("/models")["data"]]
        except (Unanswered, KeyError, TypeError) as error:
            raise TastemakerError(
                f"{self.url} does not list its models ({error}); name one: {self.url}#MODEL"
            ) from None
        if len(found) != 1:
            raise TastemakerError(f"{self.url} serves {', '.join(found) or 'no model'}; name one: {self.url}#MODEL")
        return replace(self, model=found[0])

    def first_tokens(self, images: Tensor, questions: Sequence[str | Turns]) -> list[dict[str, float] | str]:
        """For each picture (3, H, W) and question, or turns (question, answer) of which the last has no answer: the
        first token's candidates with their log-probabilities, or why there are none. In order; `workers` at a time.
        Raises TastemakerError for what would meet every picture."""
        jobs = zip(map(as_url, images.detach().cpu()), questions)
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(lambda job: self.first_token(*job), jobs))

    def first_token(self, picture: str, question: str | Turns) -> dict[str, float] | str:
        asked = {
            "model": self.model,
            "messages": messages(picture, question),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.top,
        }
        try:
            return candidates(self.ask("/chat/completions", asked))
        except Unanswered as error:
            return str(error)

    def texts(self, images: Tensor, questions: Sequence[str | Turns], most: int = 64) -> list[tuple[str, str]]:
        """The likeliest answer of at most `most` tokens to each, and why there is none."""
        jobs = zip(map(as_url, images.detach().cpu()), questions)
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(lambda job: self.text(job[0], job[1], most), jobs))

    def text(self, picture: str, question: str | Turns, most: int) -> tuple[str, str]:
        asked = {"model": self.model, "messages": messages(picture, question), "max_tokens": most, "temperature": 0}
        try:
            return str(self.ask("/chat/completions", asked)["choices"][0]["message"]["content"]).strip(), ""
        except Unanswered as error:
            return "", str(error)
        except (KeyError, IndexError, TypeError):
            return "", "the answer has no choices"

    def ask(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """The JSON answer, after up to `tries` tries. Raises Unanswered where there is none."""
        for i in range(self.tries):
            try:
                return self._ask_once(path, content)
            except Later as error:
                if i + 1 == self.tries:
                    raise Unanswered(str(error)) from None
                time.sleep(min(error.wait or self.pause * 2**i, LONGEST))
        raise Unanswered("no try was allowed")

    def _ask_once(self, path: str, content: Mapping[str, Any] | None) -> Any:
        request = urllib.request.Request(
            self.url + path, None if content is None else json.dumps(content).encode(), headers()
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, HTTPException, ValueError) as error:  # no connection, too late, cut off, no JSON
            raise Later(f"{type(error).__name__}: {error}") from None

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        said = f"HTTP {error.code}: {error.read(300).decode(errors='replace')}"
        if error.code in OURS:
            return TastemakerError(f"{self.url} refuses the request ({said}); check the URL, the model and {KEY}")
        if error.code in AGAIN:
            asked = error.headers.get("Retry-After", "")
            return Later(said, float(asked) if asked.isdigit() else 0.0)
        return Unanswered(said)


def messages(picture: str, question: str | Turns) -> list[dict[str, Any]]:
    """The picture belongs to the first question; answers stand between the questions."""
    turns = ((question, ""),) if isinstance(question, str) else question
    out: list[dict[str, Any]] = []
    for k, (asked, answer) in enumerate(turns):
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": picture}}] if k == 0 else []
        out.append({"role": "user", "content": [*content, {"type": "text", "text": asked}]})
        out += [{"role": "assistant", "content": answer}] if answer else []
    return out


class Later(Exception):
    """Worth another try. wait: seconds the endpoint asks for, 0 where it does not say."""

    def __init__(self, said: str, wait: float = 0.0):
        super().__init__(said)
        self.wait = wait


def headers() -> dict[str, str]:
    key = os.environ.get(KEY)
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def candidates(answer: Any) -> dict[str, float]:
    """Token -> log-probability at the first position. Raises TastemakerError where the endpoint gives none at all."""
    try:
        listed = answer["choices"][0]["logprobs"]
    except (KeyError, IndexError, TypeError):
        raise Unanswered("the answer has no choices") from None
    if not listed or not listed.get("content"):
        raise TastemakerError(
            "the endpoint answered without log-probabilities; it must support `logprobs` and `top_logprobs` of chat "
            "completions (vLLM and SGLang do)"
        )
    first = listed["content"][0]
    try:
        found = {str(t["token"]): float(t["logprob"]) for t in first.get("top_logprobs") or []}
        found.setdefault(str(first["token"]), float(first["logprob"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Unanswered(f"the log-probabilities are not in the expected form: {error}") from None
    return found


def as_url(image: Tensor) -> str:
    """(3, H, W) in [0, 1] as a PNG in a data URL."""
    return "data:image/png;base64," + base64.b64encode(as_png(image)).decode()
