"""A set of answers with everything that a format may lose."""

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tastemaker.data.votes import Votes
from tastemaker.records import Prompt, Ranking, Rating, Vote

WORDS = 'a "red", apple;\r\nand 猫 \u2028 — très\tbon'


def write_picture(path: Path, seed: int) -> str:
    """A small PNG; its sha256."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return hashlib.sha256(out.getvalue()).hexdigest()


def sample_votes(folder: Path) -> Votes:
    paths = [Path(f"images/{i % 2}/picture {i}.png") for i in range(5)]
    a, b, c, d, e = (write_picture(folder / path, i) for i, path in enumerate(paths))
    about = {"ms": 1234, "shown": [1, 0], "kind": "work", "nested": {"x": [1.5, None, "y"]}, "counted": True}
    votes = (
        Vote("p0", WORDS, a, b, "a", "ann-1", about),
        Vote("p0", WORDS, b, a, "a", "ann-2"),
        Vote("p0", WORDS, a, c, "tie", "ann-1"),
        Vote("p0", WORDS, a, c, "both_bad", "ann-2"),
        Vote("p1", "a dog", d, e, "skip", "ann-1", {"reason": "unclear"}),
        Vote("p1", "a dog", d, "a name without a file", "b", ""),
    )
    ratings = (
        Rating("p0", WORDS, a, "overall", 5.0, "ann-1", about),
        Rating("p0", WORDS, a, "fidelity", 0.1 + 0.2, "ann-2"),
    )
    rankings = (
        Ranking("p0", WORDS, (a, b, c), (1, 5, 1), "ann-1", about),
        Ranking("p0", WORDS, (c, b, a), (1, 2, 3), "ann-2"),
        Ranking("p1", "a dog", (d, e), (2, 1), "ann-1"),
    )
    spec = {"tag": "counting", "include": [{"class": "dog", "count": 2}]}
    prompts = {
        "p0": Prompt(WORDS),
        "p1": Prompt("a dog", label=3, spec=spec),
        "p2": Prompt("nobody has answered this yet"),
    }
    return Votes(votes, ratings, rankings, dict(zip((a, b, c, d, e), paths)), prompts, folder)
