"""A user's own reward from a Python file: `my_reward.py:score`.

    def score(images, prompts):        # (B, 3, H, W) float32 in [0, 1], list of Prompt (prompt.text are the words)
        return images.mean((1, 2, 3))  # (B,), higher is better
    score.differentiable = True        # only if a gradient may flow back to the pictures; False otherwise

Pictures lie on the processor; those for a differentiable reward lie where the generator works. The name after the
colon may also be a class (made without arguments) or an object with such a `score`; what it says of `name`,
`differentiable`, `range` and `provenance` is kept, and what it has of a verifier's questions (`clear`, `potential`,
`critique`, `judge`, `faults`) is answered by it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName
from ..protocols import Reward
from ..records import Prompt, Provenance
from ..weights import file_hash

QUESTIONS = ("clear", "potential", "critique", "judge", "faults")  # of a verifier


@dataclass
class CustomReward:
    """A function `(images, prompts) -> (B,)` with the facts of a reward."""

    function: Callable[[Tensor, Sequence[Prompt]], Any]
    name: str
    differentiable: bool
    range: tuple[float, float]
    provenance: Provenance

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, H, W), B prompts -> what the function gives, as a tensor; its shape is checked by `sampling`."""
        values = self.function(images if self.differentiable else images.cpu(), list(prompts))
        return values if isinstance(values, Tensor) else torch.as_tensor(values, dtype=torch.float32)


def load_custom(where: str) -> Reward:
    """`FILE.py:NAME`, or `FILE.py` for its `score`.

    Raises TastemakerError where the file is missing, raises when it is run, or NAME is no reward; UnknownName with
    the nearest names where the file has no NAME.
    """
    file, _, attribute = where.rpartition(":") if not where.endswith(".py") else (where, "", "score")
    path, attribute = Path(file), attribute or "score"
    module = _run(path)
    found = getattr(module, attribute, None)
    if found is None:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UnknownName(f"name in {path}", attribute, names, f"Give the reward as {path}:NAME")
    return _as_reward(_made(found, where), path, attribute)


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise TastemakerError(f"expected a Python file with a reward, but there is no file {path}")
    name = f"tastemaker_custom_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TastemakerError(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its dataclasses and its workers' pickles find it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise TastemakerError(f"{path}{_line(error, path)} raised {type(error).__name__}: {error}") from error
    return module


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file it happened, for a sentence."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
    return f" line {lines[-1]}" if lines else ""


def _made(found: Any, where: str) -> Any:
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:
        raise TastemakerError(
            f"{where} could not be made without arguments: {type(error).__name__}: {error}"
        ) from error


def _as_reward(found: Any, path: Path, attribute: str) -> Reward:
    function = getattr(found, "score", found)
    if not callable(function):
        raise TastemakerError(
            f"{path}:{attribute} is neither a function (images, prompts) -> (B,) nor an object with such a `score`; "
            f"it is of type {type(found).__name__}"
        )
    default_name = path.stem if attribute == "score" else attribute
    provenance = Provenance(f"{path.name}:{attribute}", file_hash(path))
    made = CustomReward(
        function,
        str(getattr(found, "name", default_name)),
        bool(getattr(found, "differentiable", False)),
        getattr(found, "range", (-math.inf, math.inf)),
        getattr(found, "provenance", provenance),
    )
    for question in QUESTIONS:
        if callable(answer := getattr(found, question, None)):
            setattr(made, question, answer)
    return made
