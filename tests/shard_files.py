"""Shards for tests: small pictures of a known brightness in tars, tables and folders, and a reward that reads it."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

REWARDS = """
import os, time
from pathlib import Path
from tastemaker.records import Provenance

SLOW = float(os.environ.get("SLOW_REWARD", "0"))
MARK = os.environ.get("MARK_REWARD", "")


def bright(images, prompts):
    if MARK:
        Path(MARK, str(os.getpid())).touch()
    time.sleep(SLOW)
    return images.mean((1, 2, 3))


def words(images, prompts):
    return [float(len(p.text)) for p in prompts]


class Bright:
    name = "bright"
    differentiable = False
    range = (0.0, 1.0)
    provenance = Provenance("mean", "1", "none")
    score = staticmethod(bright)


class Brighter(Bright):
    provenance = Provenance("mean", "2", "none")


class Words(Bright):
    name = "words"
    provenance = Provenance("length", "1", "none")
    score = staticmethod(words)
"""


def level_of(i):
    """Of 255."""
    return (37 * i) % 256


def expected(i):
    return level_of(i) / 255


def png(i, size=(4, 4)):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), level_of(i), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    """members: (name, bytes)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members_of(numbers):
    for i in numbers:
        yield f"{i:05d}.png", png(i)
        yield f"{i:05d}.txt", f"picture {i}".encode()


def write_table(path, numbers, **more):
    columns = {
        "key": [f"{i:05d}" for i in numbers],
        "image": [{"bytes": png(i), "path": None} for i in numbers],
        "caption": [f"picture {i}" for i in numbers],
        **more,
    }
    pq.write_table(pa.table(columns), path)
    return path


def write_folder(path, numbers):
    path.mkdir(parents=True)
    for name, content in members_of(numbers):
        (path / name).write_bytes(content)
    return path


def write_rewards(folder):
    """The names of the rewards in a file of the folder."""
    file = folder / "rewards.py"
    file.write_text(REWARDS)
    return {name: f"{file}:{name}" for name in ("Bright", "Brighter", "Words")}
