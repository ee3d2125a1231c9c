"""Answers that are remembered: a picture is judged once for a prompt and a question, however often a search asks.

The key is the content: sha256 of the pixels, the prompt's words, the question and the verifier's provenance. What is
not known goes to the verifier as one batch. A NaN is not remembered, since the next try may succeed. With a file the
answers outlive the process; it grows by one JSON line an answer, and a line that was cut off is passed over.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..protocols import Reward
from ..records import Prompt

QUESTIONS = ("score", "clear", "potential", "critique")


class Cached:
    """The verifier with a memory; it answers what the verifier answers. computed: answers that were not known."""

    def __init__(self, verifier: Reward, path: str | Path | None = None):
        self.verifier, self.path, self.computed = verifier, None if path is None else Path(path), 0
        self.name, self.differentiable = verifier.name, False
        self.range, self.provenance = verifier.range, verifier.provenance
        self.known: dict[str, float | str] = _read(self.path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "verifier":
            raise AttributeError(name)
        asked = getattr(self.verifier, name)
        if name in ("faults", "judge"):
            return self._counting(asked)
        return self._remembering(name, asked) if name in QUESTIONS else asked

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B,), no gradient."""
        return self._remembering("score", self.verifier.score)(images, prompts)

    def _counting(self, asked: Callable[..., Any]) -> Callable[..., Any]:
        """What is more than a number is not remembered."""

        def answer(images: Tensor, *more: Any) -> Any:
            self.computed += len(images)
            return asked(images, *more)

        return answer

    def _remembering(self, question: str, asked: Callable[..., Any]) -> Callable[..., Any]:
        def answer(images: Tensor, prompts: Sequence[Prompt], *more: Tensor) -> Any:
            keys = [self._key(question, image, prompt.text) for image, prompt in zip(images, prompts)]
            new = list({key: i for i, key in reversed(list(enumerate(keys))) if key not in self.known}.values())
            found: dict[str, float | str] = {}
            if new:
                rest = (value[new] for value in more)
                values = asked(images[new], [prompts[i] for i in new], *rest)
                listed = values.tolist() if isinstance(values, Tensor) else list(values)
                found = dict(zip((keys[i] for i in new), listed))
                self._keep(found)
            self.computed += len(new)
            out = [self.known.get(key, found.get(key)) for key in keys]
            return out if question == "critique" else torch.tensor(out, dtype=torch.float32)

        return answer

    def _key(self, question: str, image: Tensor, prompt: str) -> str:
        words = repr((self.provenance.model, self.provenance.weight_hash, question, prompt, tuple(image.shape)))
        pixels = image.detach().float().cpu().contiguous().numpy().tobytes()
        return hashlib.sha256(words.encode() + pixels).hexdigest()

    def _keep(self, found: dict[str, float | str]) -> None:
        kept = {k: v for k, v in found.items() if not (isinstance(v, float) and math.isnan(v))}
        self.known |= kept
        if self.path is not None and kept:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps([key, value]) + "\n" for key, value in kept.items())


def _read(path: Path | None) -> dict[str, float | str]:
    """What a file holds, without lines that are not whole."""
    known: dict[str, float | str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path and path.is_file() else ():
        try:
            key, value = json.loads(line)
        except ValueError:
            continue
        known[key] = value
    return known
