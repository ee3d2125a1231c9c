"""How probable a vision-language model finds the right answer to a question about a picture.

The probability is that of the first answer token over the full vocabulary, with the answer's spellings added: any
case, a space before it, and a digit for a number word, as in Soft-TIFA (GenEval 2, arXiv 2512.16853). An answer that
is not among the tokens that the endpoint lists gets the largest probability that the list leaves for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from .endpoint import Endpoint, as_url
from .yes_no import SPACES, log_sum, unlisted

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SUFFIX = " Answer in one word."


@dataclass(frozen=True)
class Answer:
    """probability: of the right answer, in [0, 1]. likeliest: no other token is more probable. error: why there is
    none; the probability is then NaN."""

    probability: float = math.nan
    likeliest: bool = False
    error: str = ""


def ask(
    endpoint: Endpoint, pictures: Sequence[Tensor], asked: Sequence[tuple[int, str, str]], suffix: str = SUFFIX
) -> list[Answer]:
    """asked: (row of `pictures`, question, right answer), `endpoint.workers` at a time; pictures (3, H, W) in [0, 1].

    Raises TastemakerError for what would meet every question alike.
    """
    urls = [as_url(picture) for picture in pictures]
    with ThreadPoolExecutor(endpoint.workers) as pool:
        return list(pool.map(lambda one: read(endpoint.first_token(urls[one[0]], one[1] + suffix), one[2]), asked))


def read(listed: Mapping[str, float] | str, answer: str) -> Answer:
    """listed: tokens with their log-probabilities, or why there are none."""
    if isinstance(listed, str):
        return Answer(error=listed)
    words = spellings(answer)
    right = {token: value for token, value in listed.items() if token.strip(SPACES).casefold() in words}
    probability = math.exp(log_sum(list(right.values())) if right else unlisted(listed))
    return Answer(min(probability, 1.0), max(listed, key=lambda token: listed[token]) in right)


def spellings(answer: str) -> set[str]:
    """`two` and `2` are one answer; case is none."""
    word = answer.strip().casefold()
    if word in NUMBERS:
        return {word, str(NUMBERS.index(word))}
    return {word, NUMBERS[int(word)]} if word.isdecimal() and int(word) < len(NUMBERS) else {word}
