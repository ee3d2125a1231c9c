"""LAION's aesthetic head on stored CLIP features, down to a row of zeros and one of length 1e-20."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close

from tastemaker.rewards.laion_aesthetic import load_head, mark, unit


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    expected = json.loads((folder / "expected.json").read_text())
    inputs = np.load(folder / "inputs.npz")
    features = torch.from_numpy(inputs["raw_embeddings"])
    head = load_head(folder / "weights.safetensors")
    with torch.no_grad():
        yield close("normalised", unit(features), inputs["normalized_f32"], atol=1e-6)
        yield close("f32", mark(head, features), expected["f32"], atol=1e-5)
        yield close("f64", mark(head.double(), features.double()), expected["f64"], atol=1e-12)
