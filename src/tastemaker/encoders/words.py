"""Captions as word numbers, for the shipped tiny models. Any vocabulary: it is stored with the model."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..errors import TastemakerError, UnknownName

PAD = 0  # also the only word of an empty caption: the null condition


def split_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


class Vocabulary:
    """Word <-> number. Numbers start at 1; 0 pads to `length`."""

    def __init__(self, words: Sequence[str], length: int):
        self.words, self.length = list(words), length
        self.number = {word: i + 1 for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words) + 1

    @classmethod
    def of(cls, captions: Iterable[str], length: int, most: int = 8192) -> Vocabulary:
        """The `most` frequent words of the captions, sorted."""
        counts = collections.Counter(word for caption in captions for word in split_words(caption))
        return cls(sorted(word for word, _ in counts.most_common(most)), length)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, length) int64. Raises UnknownName with the nearest known words, TastemakerError for a long text."""
        rows = []
        for text in texts:
            words = split_words(text)
            for word in words:
                if word not in self.number:
                    raise UnknownName("prompt word", word, self.words, f"The prompt was: {text}")
            if len(words) > self.length:
                raise TastemakerError(f"the prompt has {len(words)} words, the model reads {self.length}: {text}")
            rows.append(self._pad([self.number[word] for word in words]))
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self.length)

    def encode_known(self, texts: Sequence[str]) -> Tensor:
        """As `encode`, for training captions: words outside the vocabulary and beyond the length are left out."""
        rows = [[self.number[w] for w in split_words(text) if w in self.number][: self.length] for text in texts]
        return torch.tensor([self._pad(row) for row in rows], dtype=torch.int64).reshape(len(rows), self.length)

    def _pad(self, row: list[int]) -> list[int]:
        return row + [PAD] * (self.length - len(row))
