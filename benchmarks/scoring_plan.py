"""How long 100 million pictures and seven rewards take, what they cost, and what fails: docs/scale.md's plan.

    python -m benchmarks.scoring_plan [--images 64] [--pictures 100000000] [--per-shard 10000]

Measured here, on one thread: what a picture costs besides the networks (its JPEG of 512 x 512 is read, hashed,
decoded and brought to the four views that the seven rewards of MIRO have), what a shard costs besides its pictures,
memory, the bytes of scores and ledger, and how long a ledger of all shards takes to read. Counted: the operations of
the seven networks, from their published shapes. Everything else is ASSUMED, and printed as such. Writes no row.

Letters of `transformer`: L layers, D width, N tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.score_shards import once, photographs, tar
from tastemaker.data.shard_ledger import NAME, Entry, read_ledger
from tastemaker.data.shards import Words, list_shards
from tastemaker.encoders.pixels import CLIP_CROP, Crop, Squash, View
from tastemaker.records import Prompt, Provenance
from tastemaker.workflows.shard_worker import Failed, Work, score_shard

ASSUMED = {
    "float32 of a GPU at most (H100 SXM, its maker's figure), TFLOP/s": 67.0,
    "share of it that the networks reach": 0.6,
    "bfloat16 of a GPU at most, TFLOP/s": 989.0,
    "share of it that the endpoint reaches": 0.4,
    "price of a GPU with its processors, dollars an hour": 2.5,
    "GPUs": 48.0,
    "workers that die, a GPU and day": 1.0,
    "seconds until a new worker has its weights (18 GB at 200 MB/s)": 90.0,
    "share of pictures that cannot be decoded or lack a caption": 0.01,
    "kB of a picture in its tar": 100.0,
    "tokens of a caption": 64.0,
}
ENDPOINT = "VQAScore (CLIP-FLAN-T5-XXL)"  # asked of servers, in bfloat16, in a second pass; the others are float32


def transformer(layers: int, width: int, tokens: int) -> float:
    """Floating-point operations of one forward pass: products with 12 D^2 weights a layer, and attention."""
    return layers * tokens * (24.0 * width**2 + 4 * tokens * width)


def networks() -> dict[str, float]:
    """The seven rewards of MIRO (arXiv 2510.25897) by their published shapes; operations of a picture and caption."""
    words = int(ASSUMED["tokens of a caption"])
    huge = transformer(32, 1280, 257) + transformer(24, 1024, 77)  # CLIP ViT-H/14, 224 pixels, and its text
    blip = transformer(24, 1024, 197) + transformer(12, 768, 35) + 12 * 197 * 4.0 * 768 * 1024
    t5, seen = 4096, 576 + words  # 24 + 24 layers, gated 10,240; the decoder reads all tokens and says one word
    vqa = transformer(24, 1024, 577) + 24 * seen * (2 * (4 * t5**2 + 3 * t5 * 10240) + 4.0 * seen * t5)
    return {
        "jina-clip-v2 (EVA02-L/14 at 512)": transformer(24, 1024, 1297) + transformer(24, 1024, words),
        "LAION aesthetic (CLIP L/14)": transformer(24, 1024, 257),
        "ImageReward (BLIP, ViT-L/16)": blip,
        "PickScore (CLIP H/14)": huge,
        "HPSv2.1 (CLIP H/14)": huge,
        ENDPOINT: vqa + 24 * seen * 4.0 * t5**2,
        "SciScore (CLIP H/14)": huge,
    }


class Free:
    """A reward that costs nothing but its view."""

    differentiable = False
    range = (0.0, 1.0)

    def __init__(self, number: int, view: View):
        self.name, self.view = f"reward{number}", view
        self.provenance = Provenance("no network", "0" * 64, str(view))

    def pixels(self, images: Tensor) -> Tensor:
        return self.view(images)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return self.score_pixels(self.pixels(images), prompts)

    def score_pixels(self, pixels: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return pixels.mean((1, 2, 3))


def seven() -> list[Free]:
    """CLIP's crop for four of the seven, and a view each for the others."""
    views = [Squash(512), CLIP_CROP, Squash(224), CLIP_CROP, CLIP_CROP, Crop(336), CLIP_CROP]
    return [Free(k, view) for k, view in enumerate(views)]


def entry_of(rewards: Sequence[Free], path: Path, out: Path) -> Entry:
    found = score_shard(rewards, Work(list_shards(path)[0], out, {r.name: r.name for r in rewards}, Words(), 32))
    if isinstance(found, Failed):
        raise SystemExit(found.reason)
    return found


def measured(images: int, shards: int) -> dict[str, float]:
    torch.set_num_threads(1)
    rewards, few = seven(), 8
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = (tar(folder / f"{n}.tar", photographs(n)) for n in (few, images))
        once(rewards, small, folder / "warm")
        sides = {n: [once(rewards, path, folder / f"{n}-{k}")[1:] for k in range(3)]
                 for n, path in ((few, small), (images, large))}  # fmt: skip
        cpu, clock = ({n: statistics.median(c[k] for c in runs) for n, runs in sides.items()} for k in (0, 1))
        each, pace = ((side[images] - side[few]) / (images - few) for side in (cpu, clock))
        size = {n: sum(p.stat().st_size for p in (folder / f"{n}-0").rglob("*.parquet")) for n in (few, images)}
        entry = entry_of(rewards, small, folder / "last")
        return {
            "milliseconds of a processor for a picture, besides the networks": 1000 * each,
            "milliseconds for a shard, besides its pictures": 1000 * max(0.0, clock[few] - pace * few),
            "MB of memory at most, besides the networks": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "bytes of scores for a picture, seven rewards": (size[images] - size[few]) / (images - few),
            "bytes of a shard's line in the ledger": len(line_of(entry, 0)),
            f"seconds to read a ledger of {shards:,} shards": ledger_seconds(folder, entry, shards),
        }


def line_of(entry: Entry, number: int) -> bytes:
    return json.dumps(asdict(replace(entry, shard=f"{number:06d}.tar"))).encode() + b"\n"


def ledger_seconds(folder: Path, entry: Entry, shards: int) -> float:
    whole = folder / "whole"
    whole.mkdir()
    (whole / NAME).write_bytes(b"".join(line_of(entry, k) for k in range(shards)))
    began = time.perf_counter()
    found = read_ledger(whole)
    assert len(found) == shards
    return time.perf_counter() - began


def plan(rates: dict[str, float], pictures: int, per_shard: int) -> dict[str, float]:
    """What follows from the measured rates, the counted operations and what is assumed."""
    single, reached, half, served, price, gpus, deaths, start, bad, size, _ = ASSUMED.values()
    host, shard, _, scores, line, _ = rates.values()
    six = networks()
    asked = six.pop(ENDPOINT) / (half * served * 1e12)  # seconds of a GPU for a picture
    forward = sum(six.values()) / (single * reached * 1e12)
    workers, servers = (pictures * seconds / 3600 for seconds in (forward, asked))  # GPU hours
    died = workers / 24 * deaths
    again = died * (per_shard * forward / 2 + start) / 3600  # half a shard on average, and the weights once more
    return {
        "first pass, six rewards: pictures a second and GPU": 1 / forward,
        "second pass, VQAScore's servers: pictures a second and GPU": 1 / asked,
        "GPU hours of the first pass": workers,
        "GPU hours of the second": servers,
        "processor hours besides the networks, at most": 2 * pictures * host / 1000 / 3600,
        "processors that keep a worker's GPU busy": host / 1000 / forward,
        "hours for what each shard costs besides its pictures": pictures / per_shard * shard / 1000 / 3600,
        "days": (workers + again + servers) / gpus / 24,
        "dollars": (workers + again + servers) * price,
        "workers that die": died,
        "GPU hours that are done again": again,
        "share of the workers' time that is done again": again / workers,
        "pictures without a score, each with its reason": pictures * bad,
        "TB read, twice in each pass (hash, then pictures)": 4 * pictures * size / 1e9,
        "MB/s that a worker reads": 2 * size / forward / 1e3,
        "GB of scores": pictures * scores / 1e9,
        "MB of ledger": pictures / per_shard * line / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"images": 64, "pictures": 100_000_000, "per-shard": 10_000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rates = measured(options.images, options.pictures // options.per_shard)
    counted = {name: operations / 1e9 for name, operations in networks().items()}
    follows = plan(rates, options.pictures, options.per_shard)
    for title, rows in (("measured", rates), ("counted, GFLOP", counted), ("ASSUMED", ASSUMED), ("plan", follows)):
        print(f"\n{title}")
        for name, value in rows.items():
            print(f"  {name:<78} {value:>14,.4g}" if value < 1e4 else f"  {name:<78} {value:>14,.0f}")


if __name__ == "__main__":
    main()
