"""Prompts in, the ones worth annotating out: embeddings, then vote-k (see annotate/select.py)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..annotate.select import select_prompts
from ..data.prompts import read_prompts, write_geneval
from ..encoders.words import split_words
from ..errors import MissingExtra, TastemakerError, UnknownName
from ..records import Prompt

Embed = Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> (B, D)
WIDTH = 512  # of the word hashes


def select_from_file(
    path: str | Path,
    out: str | Path,
    count: int,
    embedding: str = "words",
    k: int = 150,
    group: int = 20_000,
    seed: int = 0,
    console: Console | None = None,
) -> list[Prompt]:
    """`count` prompts of a file by vote-k, written to `out` (GenEval's metadata format, which keeps checks).

    Prompts of the same words count once. embedding: `words`, `tiny-clip` or `sentence:PATH`, see `load_embedding`.
    Raises TastemakerError as `read_prompts` and `select_prompts` do.
    """
    console = console or Console(stderr=True)
    unique = {" ".join(p.text.casefold().split()): p for p in reversed(read_prompts(path))}
    prompts = list(reversed(unique.values()))
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   console=console)  # fmt: skip
    with bar:
        embedded = bar.add_task("embedding", total=len(prompts))
        compared = bar.add_task("comparing", total=len(prompts))
        vectors = embed_prompts(prompts, embedding, progress=lambda done: bar.update(embedded, completed=done))
        rows = select_prompts(
            vectors, count, k, group, seed=seed, progress=lambda done, _: bar.update(compared, completed=done)
        )
    chosen = [prompts[i] for i in rows]
    write_geneval(out, chosen)
    console.print(f"{len(chosen)} of {len(prompts)} prompts -> {out}")
    return chosen


def embed_prompts(
    prompts: Sequence[Prompt | str],
    embedding: str = "words",
    batch: int = 256,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """(N, D). Raises UnknownName for an embedding, or a word that tiny-clip does not know."""
    texts = [Prompt.of(p).text for p in prompts]
    embed, parts = load_embedding(embedding), []
    for start in range(0, len(texts), batch):
        parts.append(embed(texts[start : start + batch]))
        if progress:
            progress(min(start + batch, len(texts)))
    if not parts:
        raise TastemakerError("there are no prompts to embed")
    return np.concatenate(parts)


def load_embedding(name: str) -> Embed:
    """`words`: hashed words and word pairs, needs nothing; `tiny-clip` or `tiny-clip:PATH`: prompts of the embedded
    world; `sentence:PATH`: the folder of a sentence encoder of transformers, such as all-MiniLM-L6-v2 or MPNet."""
    kind, _, path = name.partition(":")
    makers = {"words": lambda _: hash_words, "tiny-clip": _tiny_clip, "sentence": _sentence}
    if kind not in makers:
        raise UnknownName("embedding of prompts", name, [*makers, "sentence:PATH"])
    return makers[kind](path)


def hash_words(texts: Sequence[str]) -> NDArray[np.float32]:
    """(B, 512): each word and each two words in a row adds 1 or -1 at a place given by its hash (Weinberger et al.
    2009, arXiv 0902.2206), damped by the root of how often it stands there."""
    rows = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in zip(rows, texts):
        words = split_words(text) or [text.strip() or "nothing"]
        for word in [*words, *(f"{a} {b}" for a, b in zip(words, words[1:]))]:
            code = zlib.crc32(word.encode())
            row[code % WIDTH] += 1 if code >> 16 & 1 else -1
        if not row.any():  # all of it cancelled out
            row[zlib.crc32(text.encode()) % WIDTH] = 1
    return np.sign(rows) * np.sqrt(np.abs(rows))


def _tiny_clip(path: str) -> Embed:
    import torch

    from ..encoders.tiny_clip import load_tiny_clip

    model = load_tiny_clip(path or None)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return model.text_vectors([Prompt(t) for t in texts]).float().cpu().numpy()

    return embed


def _sentence(path: str) -> Embed:
    """The mean over the tokens of the last layer (Reimers & Gurevych 2019, arXiv 1908.10084)."""
    if not Path(path).is_dir():
        raise TastemakerError(f"expected the folder of a sentence encoder after sentence:, got '{path}'")
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "models") from error
    import torch

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state  # (B, L, D)
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        return ((hidden * mask).sum(1) / mask.sum(1).clamp_min(1)).float().numpy()

    return embed
