"""What scoring costs beside the network's own forward: sampling.score, and score_folder from PNG files.

    python -m benchmarks.scoring [--rows NAME ...] [--batch 32] [--size 512] [--width 384] [--depth 12] [--repeats 3]

The reward is ImageReward's architecture with random weights (ViT-S by default, a text half of the same width);
pictures of size x size, each with its own prompt. The ratio is the bare network's time over ours, that is our
throughput over the bare one. Rows:

scoring_efficiency: pictures in memory (rounding, resize, crop, tokens, network), one batch.
scoring_efficiency_from_files: also reading, hashing and decoding PNGs and writing the table, one batch.
scoring_efficiency_released: the first one at the size that is released (ViT-L: width 1024, depth 24; text 768, 12).

These three in seconds of the processor, the network on one thread: ours is the whole loop, what other threads read
ahead counted in full; other is what of it went by inside the network's forward. So both are of the same calls: two
equal calls differ by up to a tenth on a machine that does other things too, which is more than what is measured here.

scoring_efficiency_from_files_elapsed: seconds of the clock, eight batches; the network on one thread, files are read
ahead on others. The bare calls, on the same inputs, come after and before in turn. Needs a processor that is idle.
Its figure is as exact as the machine is quiet.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.rows import write
from tastemaker.data.images import resize, save_image
from tastemaker.encoders.blip import BlipConfig
from tastemaker.encoders.wordpiece import WordPieces
from tastemaker.rewards.imagereward import ImageReward, ImageRewardNetwork
from tastemaker.sampling import score
from tastemaker.workflows.score import score_folder

WORDS = ("the", "red", "cat", "on", "table", "in", "front", "tree", "with", "small", "dog", "bright", "colors",
         "highly", "detailed", "photo")  # fmt: skip


INSIDE = "what of it the network's forward took, "


def reward_of(width: int, depth: int, text_width: int, text_depth: int) -> ImageReward:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *WORDS]
    config = BlipConfig(
        width=width, depth=depth, heads=width // 64, hidden=4 * width, words=len(pieces) + 2,
        text_width=text_width, text_depth=text_depth, text_heads=text_width // 64, text_hidden=4 * text_width,
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


@contextmanager
def files(options: argparse.Namespace, count: int) -> Iterator[Path]:
    """A folder of PNGs, each with its prompt beside it."""
    with tempfile.TemporaryDirectory() as folder:
        for i, (image, text) in enumerate(zip(pictures(count, options.size), prompts(count))):
            save_image(image, Path(folder) / f"{i:03d}.png")
            (Path(folder) / f"{i:03d}.txt").write_text(text)
        yield Path(folder)


def score_files(reward: ImageReward, folder: Path, batch: int) -> None:
    score_folder([reward], folder, folder / "scores.parquet", batch=batch, console=Console(file=io.StringIO()))


def measured(network: nn.Module, loop: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds of the loop, all threads, and of the network's forward, in the thread that calls it."""
    forward, inside = network.forward, 0.0

    def watched(*inputs: Tensor) -> Tensor:
        nonlocal inside
        began = time.thread_time()
        out = forward(*inputs)
        inside += time.thread_time() - began
        return out

    network.forward = watched  # type: ignore[method-assign]
    try:
        began = time.process_time()
        loop()
        return time.process_time() - began, inside
    finally:
        del network.forward


def report(name: str, rows: list[tuple[float, float]], other_is: str, unit: str) -> None:
    """rows: seconds of ours and of the bare network, a pair per repeat."""
    ours, other = (statistics.median(column) for column in zip(*rows))
    write(
        name=name,
        ours=ours,
        other=other,
        other_is=other_is,
        ratio=statistics.median(bare / whole for whole, bare in rows),
        target=">= 0.95",
        unit=unit,
        command=" ".join(["python -m benchmarks.scoring", *sys.argv[1:]]),
    )


def shape(options: argparse.Namespace, batch: int, width: int, depth: int) -> str:
    return f"batch {batch}, width {width}, depth {depth}, pictures of {options.size} x {options.size}"


def small(options: argparse.Namespace) -> ImageReward:
    return reward_of(options.width, options.depth, options.width, options.depth // 2)


def in_memory(options: argparse.Namespace, name: str, reward: ImageReward, batch: int, said: str) -> None:
    images, texts = pictures(batch, options.size), prompts(batch)
    score([reward], images[:2], texts[:2])  # warm
    rows = [measured(reward.network, lambda: score([reward], images, texts, batch)) for _ in range(options.repeats)]
    report(name, rows, INSIDE + said, "CPU s")


def scoring_efficiency(options: argparse.Namespace) -> None:
    said = shape(options, options.batch, options.width, options.depth)
    in_memory(options, "scoring_efficiency", small(options), options.batch, said)


def scoring_efficiency_released(options: argparse.Namespace) -> None:
    batch = max(1, options.batch // 8)
    reward = reward_of(1024, 24, 768, 12)
    in_memory(options, "scoring_efficiency_released", reward, batch, shape(options, batch, 1024, 24))


def scoring_efficiency_from_files(options: argparse.Namespace) -> None:
    reward = small(options)
    with files(options, options.batch) as folder:
        score_files(reward, folder, options.batch)  # warm
        rows = [
            measured(reward.network, lambda: score_files(reward, folder, options.batch))
            for _ in range(options.repeats)
        ]
    said = shape(options, options.batch, options.width, options.depth)
    report("scoring_efficiency_from_files", rows, INSIDE + said, "CPU s")


def scoring_efficiency_from_files_elapsed(options: argparse.Namespace) -> None:
    reward, batch = small(options), max(1, options.batch // 4)
    inputs: list[tuple[Tensor, ...]] = []
    with files(options, 8 * batch) as folder:
        seen = reward.network.register_forward_pre_hook(lambda _, given: inputs.append(given))
        score_files(reward, folder, batch)  # warm, and keeps what the network was given
        seen.remove()
        sides: list[Callable[[], None]] = [lambda: score_files(reward, folder, batch), lambda: bare(reward, inputs)]
        rows = []
        for i in range(options.repeats):
            taken = {k: seconds(sides[k]) for k in ((0, 1) if i % 2 else (1, 0))}
            rows.append((taken[0], taken[1]))
    said = "the network's forward alone, 8 times " + shape(options, batch, options.width, options.depth)
    report("scoring_efficiency_from_files_elapsed", rows, said, "s")


@torch.no_grad()
def bare(reward: ImageReward, inputs: list[tuple[Tensor, ...]]) -> None:
    for given in inputs:
        reward.network(*given)


def seconds(do: Callable[[], None]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


ROWS = {
    row.__name__: row
    for row in (
        scoring_efficiency,
        scoring_efficiency_from_files,
        scoring_efficiency_from_files_elapsed,
        scoring_efficiency_released,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    for name, default in (("batch", 32), ("size", 512), ("width", 384), ("depth", 12), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.rows:
        ROWS[name](options)


if __name__ == "__main__":
    main()
