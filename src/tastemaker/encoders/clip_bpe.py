"""CLIP's byte pairs (Radford et al. 2021, arXiv 2103.00020): words into numbers.

Text falls into runs of letters, single digits, runs of other marks and the endings 's 't 're 've 'm 'll 'd; the UTF-8
bytes of each become printable characters, which are joined pair by pair in the order in which the pairs were learned.
"""

from __future__ import annotations

import gzip
import html
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import TastemakerError
from .official import beside, read_json

BEGIN, END, LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
LENGTH = 77
RELEASED = 49152 - 256 - 2  # pairs of the released list
ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
QUOTES = {ord(c): "'" for c in "‘’‚‛"} | {ord(c): '"' for c in "“”„‟"}
FILES = ("vocab.json", "tokenizer.json", "bpe_simple_vocab_16e6.txt.gz")


class BytePairs:
    """numbers: the vocabulary; merges: pairs in the order learned; clean: what happens to a text first.

    Raises TastemakerError where the two special marks or a byte are not in the vocabulary.
    """

    def __init__(
        self,
        numbers: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        clean: Callable[[str], str],
        origin: str = "the vocabulary",
    ):
        needed = [BEGIN, END, *(c + end for c in BYTES.values() for end in ("", LAST))]
        missing = [piece for piece in needed if piece not in numbers]
        if missing:
            raise TastemakerError(f"{origin} is no CLIP vocabulary: it lacks {', '.join(missing[:3])}")
        self.numbers, self.clean = numbers, clean
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def encode(self, texts: Sequence[str], length: int = LENGTH) -> Tensor:
        """(B, length) int64: begin, pieces, end, cut to `length` with the end kept, padded with 0."""
        begin, end = self.numbers[BEGIN], self.numbers[END]
        rows = [[begin, *self.pieces(text)[: length - 2], end] for text in texts]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows]).view(-1, length)

    def pieces(self, text: str) -> list[int]:
        return [number for word in words(self.clean(text)) for number in self.of_word(word)]

    def of_word(self, word: str) -> list[int]:
        if word not in self.known:
            symbols = [BYTES[b] for b in word.encode()]
            symbols[-1] += LAST
            self.known[word] = [self.numbers[s] for s in self.joined(symbols)]
        return self.known[word]

    def joined(self, symbols: list[str]) -> list[str]:
        while len(symbols) > 1:
            rank, pair = min((self.ranks.get(p, len(self.ranks)), p) for p in zip(symbols, symbols[1:]))
            if rank == len(self.ranks):
                break
            symbols = merged(symbols, pair)
        return symbols


def merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of the pair made one, from the left."""
    out, i = [], 0
    while i < len(symbols):
        hit = tuple(symbols[i : i + 2]) == pair
        out.append("".join(pair) if hit else symbols[i])
        i += 2 if hit else 1
    return out


def words(text: str) -> Iterator[str]:
    i = 0
    while i < len(text):
        ending = next((e for e in ENDINGS if text.startswith(e, i)), None)
        kind = kind_of(text[i])
        j = i + (len(ending) if ending else 1)
        while not ending and kind in ("letter", "mark") and j < len(text) and kind_of(text[j]) == kind:
            j += 1
        if kind != "space":
            yield text[i:j]
        i = j


def kind_of(c: str) -> str:
    if c.isspace():
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(c)[0], "mark")


def clean_transformers(text: str) -> str:
    """As CLIPTokenizerFast: composed characters, single spaces, lower case."""
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def clean_open_clip(text: str) -> str:
    """As open_clip: HTML entities resolved too, and of ftfy's repairs straight quotes and composed characters (text
    whose encoding was mistaken somewhere is left as it is)."""
    return clean_transformers(html.unescape(html.unescape(text.translate(QUOTES))))


def byte_characters() -> dict[int, str]:
    """A printable character for each byte; those that have none get the characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


BYTES = byte_characters()


def load_byte_pairs(path: str | Path, clean: Callable[[str], str]) -> BytePairs:
    """From a folder (or its subfolder `tokenizer`) with vocab.json and merges.txt, with a tokenizer.json, or with
    open_clip's bpe_simple_vocab_16e6.txt.gz; or one of these files. Raises TastemakerError that says where they must
    lie."""
    path = Path(path)
    file = path if path.name in FILES else beside(path, ("tokenizer",), FILES)
    if file is None or not file.is_file():
        raise TastemakerError(
            f"no CLIP tokenizer for {path}; put vocab.json and merges.txt of any CLIP (all share them), its "
            f"tokenizer.json, or {FILES[2]} beside the weights or into a folder `tokenizer` there"
        )
    numbers, merges = READERS[file.name](file)
    return BytePairs(numbers, merges, clean, str(file))


def _of_folder(file: Path) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    merges = file.with_name("merges.txt")
    if not merges.is_file():
        raise TastemakerError(f"{file} lies without its merges.txt; put both into one folder")
    lines = merges.read_text(encoding="utf-8").split("\n")
    return read_json(file), [pair(line) for line in lines if line and not line.startswith("#version")]


def _of_json(file: Path) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    model = read_json(file).get("model", {})
    if "vocab" not in model or "merges" not in model:
        raise TastemakerError(f"{file} holds no byte pairs; expected the tokenizer.json of a CLIP")
    return model["vocab"], [pair(m) if isinstance(m, str) else tuple(m) for m in model["merges"]]


def _of_release(file: Path) -> tuple[Mapping[str, int], list[tuple[str, str]]]:
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    merges = [pair(line) for line in lines[1 : RELEASED + 1] if line]
    pieces = [*BYTES.values(), *(c + LAST for c in BYTES.values()), *("".join(m) for m in merges), BEGIN, END]
    return {piece: i for i, piece in enumerate(pieces)}, merges


READERS = dict(zip(FILES, (_of_folder, _of_json, _of_release)))


def pair(line: str) -> tuple[str, str]:
    first, _, second = line.strip("\r").partition(" ")
    return first, second
