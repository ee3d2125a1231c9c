"""A critique inside a prompt, in words that a small generator knows. Standard library only."""

from __future__ import annotations

from dataclasses import replace

from .records import Prompt

SMALL = {"a", "an", "the", "of", "and", "photo"}


def emphasised(prompt: Prompt, critique: str) -> Prompt:
    """The prompt, and once more those of its words that the critique names: it stays within the words that a small
    generator knows. Where it names none, the prompt as it is."""
    said = set(critique.lower().replace(",", " ").replace(".", " ").replace(":", " ").split())
    named = [w for w in dict.fromkeys(prompt.text.lower().split()) if w in said - SMALL]
    return replace(prompt, text=f"{prompt.text} {' '.join(named)}") if named else prompt
