"""Which class a prompt names, for generators and rewards of classes. Letters: B batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import TastemakerError
from .records import Prompt


def class_numbers(prompts: Sequence[Prompt], classes: int) -> Tensor:
    """(B,) int64: each prompt's `label`, or its text where that is a number; the empty prompt is the null class,
    number `classes`. Raises TastemakerError for other words and for numbers that are no class."""
    return torch.tensor([_class_number(prompt, classes) for prompt in prompts], dtype=torch.int64)


def named_classes(prompts: Sequence[Prompt], classes: int) -> Tensor:
    """(B,) int64 in [0, classes): as `class_numbers`, where the null class will not do."""
    numbers = class_numbers(prompts, classes)
    if (numbers == classes).any():
        raise TastemakerError(
            f"expected the class of every picture, a number from 0 to {classes - 1}; a prompt is empty and has no "
            "`label`. In a folder of pictures the name of the subfolder is the class"
        )
    return numbers


def _class_number(prompt: Prompt, classes: int) -> int:
    text = prompt.text.strip()
    if prompt.label is None and not text:
        return classes
    if prompt.label is None and not (text.isascii() and text.isdigit()):
        raise TastemakerError(
            f"this generator draws classes, and '{prompt.text}' names none by number; write a number from 0 to "
            f"{classes - 1} as the prompt, or give prompts with a `label`"
        )
    number = int(text) if prompt.label is None else prompt.label
    if not 0 <= number < classes:
        raise TastemakerError(f"expected a class from 0 to {classes - 1}, got {number}")
    return number
