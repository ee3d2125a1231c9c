"""BERT's uncased word pieces (Devlin et al. 2018, arXiv 1810.04805): words into numbers, from a vocab.txt.

Text is cleaned of control characters, Chinese characters stand alone, case and accents go, punctuation stands alone;
each word then falls greedily into its longest known pieces.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import TastemakerError
from .official import beside, read_json

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
LONGEST = 100  # a word of more characters is unknown
CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
           (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))  # fmt: skip


class WordPieces:
    """numbers: the vocabulary, a number for each piece. Raises TastemakerError where a special piece is missing."""

    def __init__(self, numbers: Mapping[str, int], origin: str = "the vocabulary"):
        missing = [piece for piece in (PAD, UNKNOWN, BEGIN, END) if piece not in numbers]
        if missing:
            raise TastemakerError(f"{origin} is no BERT vocabulary: it lacks {', '.join(missing)}")
        self.numbers = dict(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def encode(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """ids and mask, (B, length) int64: [CLS] pieces [SEP], cut to `length` and padded with mask 0."""
        rows = [[BEGIN, *self.pieces(text)[: length - 2], END] for text in texts]
        ids = [[self.numbers[piece] for piece in row] + [self.numbers[PAD]] * (length - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        return torch.tensor(ids).view(-1, length), torch.tensor(mask).view(-1, length)

    def pieces(self, text: str) -> list[str]:
        return [piece for word in words(text) for piece in self.split(word)]

    def split(self, word: str) -> list[str]:
        """Longest known piece first; [UNK] where no split is known."""
        if len(word) > LONGEST:
            return [UNKNOWN]
        pieces, begin = [], 0
        while begin < len(word):
            mark = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((e for e in ends if mark + word[begin:e] in self.numbers), None)
            if end is None:
                return [UNKNOWN]
            pieces.append(mark + word[begin:end])
            begin = end
        return pieces


def words(text: str) -> Iterator[str]:
    """Lower-case words without accents, and single punctuation marks."""
    for word in "".join(map(cleaned, text)).split():
        plain = unicodedata.normalize("NFD", word.lower())
        yield from apart("".join(c for c in plain if unicodedata.category(c) != "Mn"))


def cleaned(c: str) -> str:
    if c in "\t\n\r" or unicodedata.category(c) == "Zs":
        return " "
    if c in "\0\ufffd" or unicodedata.category(c).startswith("C"):
        return ""
    return f" {c} " if any(low <= ord(c) <= high for low, high in CHINESE) else c


def apart(word: str) -> Iterator[str]:
    """A word's runs between punctuation, and each mark by itself."""
    begin = 0
    for i, c in enumerate(word):
        if is_punctuation(c):
            yield from filter(None, (word[begin:i], c))
            begin = i + 1
    yield from filter(None, (word[begin:],))


def is_punctuation(c: str) -> bool:
    """Every ASCII character that is no letter, digit or space, and Unicode's punctuation."""
    return "!" <= c <= "/" or ":" <= c <= "@" or "[" <= c <= "`" or "{" <= c <= "~" or (
        unicodedata.category(c).startswith("P"))  # fmt: skip


def load_word_pieces(path: str | Path) -> WordPieces:
    """From a vocab.txt (one piece a line), a tokenizer.json, or a folder with one of them (also in its subfolders
    `tokenizer` and `bert-base-uncased`). Raises TastemakerError that says where the file must lie."""
    path = Path(path)
    known = path.suffix in (".txt", ".json")
    file = path if known else beside(path, ("tokenizer", "bert-base-uncased"), ("vocab.txt", "tokenizer.json"))
    if file is None or not file.is_file():
        raise TastemakerError(
            f"no BERT vocabulary for {path}; put vocab.txt of bert-base-uncased (30,522 lines) beside the weights "
            "or into a folder `tokenizer` or `bert-base-uncased` there"
        )
    if file.suffix == ".json":
        return WordPieces(_of_json(file), str(file))
    return WordPieces({p: i for i, p in enumerate(file.read_text(encoding="utf-8").splitlines())}, str(file))


def _of_json(file: Path) -> Mapping[str, int]:
    vocabulary = read_json(file).get("model", {}).get("vocab")
    if not isinstance(vocabulary, Mapping):
        raise TastemakerError(
            f"{file} holds no vocabulary of word pieces; expected bert-base-uncased's tokenizer.json"
        )
    return vocabulary
