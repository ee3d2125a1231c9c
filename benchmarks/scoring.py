"""What scoring costs beside the network's own forward: sampling.score, and score_folder from PNG files.

    python -m benchmarks.scoring [--batch 32] [--size 512] [--width 384] [--depth 12] [--repeats 3]

The reward is ImageReward's architecture with random weights (ViT-S by default, a text half of the same width). Beside
each network call the same call is made once more, bare (see sampling_overhead.py), so both sides meet the same load.
One thread, seconds of the processor; batch pictures of size x size, each with its own prompt. The ratio is the bare
forward's time over ours, that is our throughput over the bare one. Rows written: scoring_efficiency (pictures in
memory: rounding, resize, crop, tokens, network) and scoring_efficiency_from_files (also decoding PNGs, hashing them
and writing the table).
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.rows import write
from benchmarks.sampling_overhead import measured
from tastemaker.data.images import resize, save_image
from tastemaker.encoders.blip import BlipConfig
from tastemaker.encoders.wordpiece import WordPieces
from tastemaker.rewards.imagereward import ImageReward, ImageRewardNetwork
from tastemaker.sampling import score
from tastemaker.workflows.score import score_folder

WORDS = ("the", "red", "cat", "on", "table", "in", "front", "tree", "with", "small", "dog", "bright", "colors",
         "highly", "detailed", "photo")  # fmt: skip


def reward_of(width: int, depth: int) -> ImageReward:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *WORDS]
    config = BlipConfig(
        width=width, depth=depth, heads=width // 64, hidden=4 * width, words=len(pieces) + 2,
        text_width=width, text_depth=depth // 2, text_heads=width // 64, text_hidden=4 * width,
    )  # fmt: skip
    torch.manual_seed(0)
    network = ImageRewardNetwork(config).eval().requires_grad_(False)
    return ImageReward(network, WordPieces({piece: i for i, piece in enumerate(pieces)}))


def pictures(count: int, size: int) -> Tensor:
    """(count, 3, size, size): soft colours with some grain, so that PNG has to work as on a photograph."""
    generator = torch.Generator().manual_seed(0)
    soft = resize(torch.rand(count, 3, 12, 12, generator=generator), size, size)
    return (soft + 0.02 * torch.randn(soft.shape, generator=generator)).clamp(0, 1)


def prompts(count: int) -> list[str]:
    return [" ".join(WORDS[i % 5 :]) + f" {i}" for i in range(count)]


def report(name: str, loop, reward: ImageReward, options: argparse.Namespace) -> None:
    rows = [measured([reward.network], loop) for _ in range(options.repeats)]
    ours, other = (statistics.median(column) for column in zip(*rows))
    write(
        name=name,
        ours=ours,
        other=other,
        other_is=f"the network's forward alone, batch {options.batch}, width {options.width}, depth {options.depth}, "
        f"pictures of {options.size} x {options.size}",
        ratio=statistics.median(bare / whole for whole, bare in rows),
        target=">= 0.95",
        unit="CPU s",
        command=" ".join(["python -m benchmarks.scoring", *sys.argv[1:]]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 32), ("size", 512), ("width", 384), ("depth", 12), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reward, images, texts = (
        reward_of(options.width, options.depth), pictures(options.batch, options.size), prompts(options.batch)
    )  # fmt: skip
    score([reward], images[:2], texts[:2])  # warm
    report("scoring_efficiency", lambda: score([reward], images, texts, options.batch), reward, options)
    with tempfile.TemporaryDirectory() as folder:
        for i, (image, text) in enumerate(zip(images, texts)):
            save_image(image, Path(folder) / f"{i:03d}.png")
            (Path(folder) / f"{i:03d}.txt").write_text(text)
        out, quiet = Path(folder) / "scores.parquet", Console(file=io.StringIO())

        def loop() -> None:
            score_folder([reward], folder, out, batch=options.batch, console=quiet)

        report("scoring_efficiency_from_files", loop, reward, options)


if __name__ == "__main__":
    main()
