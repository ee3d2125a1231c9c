"""What the models of human_preference.py read: features of every picture and prompt, kept on disk, a part at a time.

    python -m evidence.human_features --data PATH --cache FOLDER [--most N]

Nothing here is learned: EfficientNet-lite0's stages at three sides (the picture and its mirror image), low-level
statistics, MiniLM's vectors of the prompts. A run that is cut off goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tastemaker.data.files import whole_file
from tastemaker.data.images import load_image
from tastemaker.data.ratings import RatingsTable, read_ratings
from tastemaker.encoders.efficientnet_lite0 import EfficientNetLite0
from tastemaker.encoders.lite0_stages import Lite0Stages, maps
from tastemaker.encoders.low_level import LowLevel
from tastemaker.encoders.minilm import MiniLM
from tastemaker.records import Prompt

from .zero_shot import fits

SIDES = (128, 224, 320)  # pixels
PART = 100  # pictures of a file


@dataclass(frozen=True)
class Features:
    """N pictures, a row each. prompts: of the row's prompt. head: mean and variance of the last map before its norm,
    over the picture's places, for the Frechet distance. fits: see zero_shot.py; the first is a score like CLIP's."""

    stages: NDArray[np.float32]  # (N, D)
    low: NDArray[np.float32]  # (N, E)
    pooled: NDArray[np.float32]  # (N, 1280), the usual feature
    prompts: NDArray[np.float32]  # (N, 384)
    head: NDArray[np.float32]  # (N, 2, 1280)
    reference: NDArray[np.float32]  # (2, 1280), what that norm saw of ImageNet
    fits: NDArray[np.float32]  # (N, 10)

    @property
    def fit(self) -> NDArray[np.float32]:
        """(N,): the cosine of the names that ImageNet's classifier sees with the whole prompt."""
        return self.fits[:, 0]


def read_features(table: RatingsTable, cache: Path, most: int | None = None) -> Features | None:
    """Every part, reading those that are not there yet; None where `most` parts were read and some are missing."""
    cache.mkdir(parents=True, exist_ok=True)
    parts = [table.images[i : i + PART] for i in range(0, len(table), PART)]
    paths = [cache / f"part-{k:03d}.npz" for k in range(len(parts))]
    missing = [k for k, path in enumerate(paths) if not path.is_file()]
    if missing:
        reader = Reader()
        for k in missing[:most]:
            write_part(paths[k], reader.read(parts[k]))
            print(f"read {PART * (k + 1)} of {len(table)} pictures", flush=True)
    if most is not None and len(missing) > most:
        return None
    read = [np.load(path) for path in paths]
    columns = {name: np.concatenate([part[name] for part in read]) for name in ("stages", "low", "pooled", "head")}
    network = EfficientNetLite0().network
    reference = torch.stack([network._bn1.running_mean, network._bn1.running_var]).numpy()
    found = fits(network._fc(torch.from_numpy(columns["pooled"])).detach(), table.prompts)
    return Features(prompts=prompt_vectors(table.prompts), reference=reference, fits=found, **columns)


def write_part(path: Path, arrays: dict[str, NDArray]) -> None:
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def prompt_vectors(prompts: Sequence[str]) -> NDArray[np.float32]:
    """(N, 384)."""
    distinct = sorted(set(prompts))
    vectors = MiniLM().vectors([Prompt(p) for p in distinct]).numpy()
    return vectors[np.searchsorted(distinct, prompts)]


class Reader:
    def __init__(self) -> None:
        self.encoder = EfficientNetLite0()
        self.stages, self.low = Lite0Stages(self.encoder, SIDES), LowLevel()

    @torch.no_grad()
    def read(self, files: Sequence[Path]) -> dict[str, NDArray[np.float32]]:
        found: dict[str, list[NDArray]] = {"stages": [], "low": [], "pooled": [], "head": []}
        for file in files:
            image = load_image(file)[None]
            both = torch.cat([image, image.flip(3)])
            found["stages"].append(self.stages.features(both).mean(0).numpy())
            found["low"].append(self.low.features(image)[0].numpy())
            found["pooled"].append(self.encoder.features(image)[0].numpy())
            found["head"].append(self.before_last_norm(image))
        return {name: np.stack(rows).astype(np.float32) for name, rows in found.items()}

    def before_last_norm(self, image: torch.Tensor) -> NDArray:
        """(2, 1280): mean and variance over places of the head's convolution."""
        network = self.encoder.network
        sized = torch.nn.functional.interpolate(image, (224, 224), mode="bicubic", antialias=True) * 2 - 1
        last = list(maps(network, sized))[-2]  # behind the last stage
        y = network._conv_head(last)[0].flatten(1)
        return torch.stack([y.mean(1), y.var(1, correction=0)]).numpy()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="a ratings table with its pictures")
    words.add_argument("--cache", type=Path, required=True, help="where features are kept")
    words.add_argument("--most", type=int, help="parts of 100 pictures to read now")
    given = words.parse_args()
    torch.set_num_threads(max(1, torch.get_num_threads()))
    done = read_features(read_ratings(given.data), given.cache, given.most)
    print("all are read" if done else "some are missing yet; run this again")


if __name__ == "__main__":
    main()
